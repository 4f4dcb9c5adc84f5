//! Offloads that hide packets or parts of them from XDP, and what a device says of itself.

use std::io;

pub use sys::ethtool::{Channels, Driver, Rings};

/// An offload that Penstock needs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offload {
    /// The NIC takes VLAN tags out of frames, where XDP cannot see them.
    RxVlan,
    /// Packets are joined before generic XDP sees them.
    Gro,
    /// The NIC joins packets.
    Lro,
}

impl Offload {
    /// The kernel's name of it.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::RxVlan => "rx-vlan-hw-parse",
            Self::Gro => "rx-gro",
            Self::Lro => "rx-lro",
        }
    }
}

impl std::fmt::Display for Offload {
    /// As `ethtool -K` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RxVlan => "rxvlan",
            Self::Gro => "gro",
            Self::Lro => "lro",
        })
    }
}

/// What came of turning an offload off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was off, or the kernel knows none such.
    WasOff,
    /// It was on, and is off now until it is restored.
    TurnedOff,
    /// It is on, and the driver does not let it be changed (`[fixed]`). On a veth or a TAP
    /// harmless: there is no NIC that could take the tag out of a frame.
    Fixed,
}

/// A device did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its state could not be read.
    #[error("cannot read {what} of {device}: {source}")]
    Read {
        /// Which part of its state.
        what: &'static str,
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An offload could not be changed.
    #[error("cannot turn {offload} of {device} {}: {source}", if *on { "on" } else { "off" })]
    Change {
        /// Which one.
        offload: Offload,
        /// The device.
        device: String,
        /// What was asked for.
        on: bool,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Offloads that were turned off, to be restored at the end; dropping restores too.
#[derive(Debug, Default)]
pub struct Offloads {
    turned_off: Vec<(String, Offload)>,
}

impl Offloads {
    /// Turns an offload of a device off and remembers that, if it was on.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Change`], such as without CAP_NET_ADMIN.
    pub fn turn_off(&mut self, device: &str, offload: Offload) -> Result<Outcome, Error> {
        let state = || {
            sys::ethtool::feature(device, offload.feature()).map_err(|source| Error::Read {
                what: "the offloads",
                device: device.to_owned(),
                source,
            })
        };
        match state()? {
            None => return Ok(Outcome::WasOff),
            Some(feature) if !feature.active => return Ok(Outcome::WasOff),
            Some(feature) if !feature.changeable => return Ok(Outcome::Fixed),
            Some(_) => {}
        }
        change(device, offload, false)?;
        // The kernel records wishes that the driver does not fulfil.
        if state()?.is_some_and(|feature| feature.active) {
            return Ok(Outcome::Fixed);
        }
        self.turned_off.push((device.to_owned(), offload));
        Ok(Outcome::TurnedOff)
    }

    /// What is turned off now, in the order in which that happened.
    pub fn turned_off(&self) -> impl Iterator<Item = (&str, Offload)> {
        self.turned_off.iter().map(|(device, offload)| (device.as_str(), *offload))
    }

    /// Turns on again what was turned off, last first, and forgets it. A device that is gone
    /// needs nothing. What failed is returned; the rest is done.
    pub fn restore(&mut self) -> Vec<Error> {
        self.turned_off
            .drain(..)
            .rev()
            .filter_map(|(device, offload)| change(&device, offload, true).err())
            .filter(
                |error| !matches!(error, Error::Change { source, .. } if source.raw_os_error() == Some(libc::ENODEV)),
            )
            .collect()
    }
}

impl Drop for Offloads {
    fn drop(&mut self) {
        // Nobody is left to tell; `restore` tells.
        let _ = self.restore();
    }
}

fn change(device: &str, offload: Offload, on: bool) -> Result<(), Error> {
    sys::ethtool::set_feature(device, offload.feature(), on).map_err(|source| Error::Change {
        offload,
        device: device.to_owned(),
        on,
        source,
    })
}

/// What a device says of itself; `None` and defaults where its driver does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What drives it.
    pub driver: Option<Driver>,
    /// Queues as the driver groups them.
    pub channels: Option<Channels>,
    /// Hardware rings.
    pub rings: Option<Rings>,
    /// Link speed in Mbit/s, while there is carrier.
    pub speed_mbps: Option<u32>,
}

/// Asks a device for all that.
///
/// # Errors
/// [`Error::Read`] when there is no such device.
pub fn facts(device: &str) -> Result<Facts, Error> {
    fn known<T>(device: &str, what: &'static str, result: io::Result<Option<T>>) -> Result<Option<T>, Error> {
        match result {
            Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            other => other.map_err(|source| Error::Read { what, device: device.to_owned(), source }),
        }
    }
    let driver = sys::ethtool::driver(device).map(Some);
    let channels = sys::ethtool::channels(device).map(Some);
    let rings = sys::ethtool::rings(device).map(Some);
    Ok(Facts {
        driver: known(device, "the driver", driver)?,
        channels: known(device, "the channels", channels)?,
        rings: known(device, "the rings", rings)?,
        speed_mbps: known(device, "the speed", sys::ethtool::speed_mbps(device))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::caps::{Capability, testable};

    /// A veth pair, `left` and `right`, in a namespace of its own.
    fn with_veth(story: impl FnOnce() + Send) {
        if testable(Capability::NetAdmin) && testable(Capability::SysAdmin) {
            sys::netns::in_new(|| {
                let status = std::process::Command::new("ip")
                    .args([
                        "link",
                        "add",
                        "left",
                        "numrxqueues",
                        "2",
                        "numtxqueues",
                        "2",
                        "type",
                        "veth",
                        "peer",
                        "name",
                        "right",
                    ])
                    .status()
                    .expect("iproute2 is installed");
                assert!(status.success());
                story();
            })
            .expect("we may unshare");
        }
    }

    fn active(offload: Offload) -> bool {
        sys::ethtool::feature("left", offload.feature()).expect("left is there").expect("every kernel has it").active
    }

    #[test]
    fn what_is_turned_off_is_restored_and_what_was_off_stays_off() {
        with_veth(|| {
            for on_before in [true, false] {
                sys::ethtool::set_feature("left", "rx-gro", on_before).expect("changeable");
                let mut offloads = Offloads::default();
                let outcome = offloads.turn_off("left", Offload::Gro).expect("there");
                let expected = [Outcome::WasOff, Outcome::TurnedOff][usize::from(on_before)];
                assert_eq!(outcome, expected);
                assert!(!active(Offload::Gro));
                // Asked twice, it is still restored to what it was at first.
                let again = offloads.turn_off("left", Offload::Gro).expect("there");
                assert_eq!(again, Outcome::WasOff);
                assert_eq!(offloads.turned_off().count(), usize::from(on_before));
                assert!(offloads.restore().is_empty());
                assert_eq!(active(Offload::Gro), on_before);
            }
        });
    }

    #[test]
    fn dropping_restores() {
        with_veth(|| {
            sys::ethtool::set_feature("left", "rx-gro", true).expect("changeable");
            let mut offloads = Offloads::default();
            offloads.turn_off("left", Offload::Gro).expect("there");
            drop(offloads);
            assert!(active(Offload::Gro));
        });
    }

    #[test]
    fn an_offload_that_is_fixed_or_missing_is_no_error() {
        with_veth(|| {
            let mut offloads = Offloads::default();
            // Newer kernels let veth change rxvlan, which then is off and restored.
            let before = active(Offload::RxVlan);
            let outcome = offloads.turn_off("left", Offload::RxVlan).expect("there");
            assert_eq!(outcome == Outcome::Fixed, active(Offload::RxVlan));
            let lro = offloads.turn_off("left", Offload::Lro).expect("there");
            assert_eq!(lro, Outcome::WasOff);
            assert!(offloads.restore().is_empty());
            assert_eq!(active(Offload::RxVlan), before);
            // A TAP has it fixed on every kernel.
            let _tap = sys::tun::Tun::open("left-tap", sys::tun::Kind::Tap).expect("ours");
            let outcome = offloads.turn_off("left-tap", Offload::RxVlan);
            assert!(matches!(outcome, Ok(Outcome::Fixed | Outcome::WasOff)));
            assert_eq!(offloads.turned_off().count(), 0);
        });
    }

    #[test]
    fn a_device_that_is_gone_needs_no_restoring_and_a_missing_one_is_named() {
        with_veth(|| {
            sys::ethtool::set_feature("left", "rx-gro", true).expect("changeable");
            let mut offloads = Offloads::default();
            offloads.turn_off("left", Offload::Gro).expect("there");
            let status = std::process::Command::new("ip")
                .args(["link", "delete", "left"])
                .status()
                .expect("iproute2 is installed");
            assert!(status.success());
            assert!(offloads.restore().is_empty());
            let error = offloads.turn_off("left", Offload::Gro).expect_err("gone");
            let sentence = error.to_string();
            assert!(sentence.starts_with("cannot read the offloads of left: No such device"), "{sentence}");
        });
    }

    #[test]
    fn a_veth_tells_its_driver_queues_and_speed() {
        with_veth(|| {
            let facts = facts("left").expect("there");
            assert_eq!(facts.driver.expect("veth says").name, "veth");
            let channels = facts.channels.expect("veth says");
            assert_eq!((channels.max_rx, channels.max_tx), (2, 2));
            assert_eq!(facts.speed_mbps, Some(10_000));
            assert_eq!(facts.rings, None);
        });
    }
}
