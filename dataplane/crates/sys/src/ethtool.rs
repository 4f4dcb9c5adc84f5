//! The ethtool ioctls: driver, channels, rings, speed, features.

use std::io;
use std::os::fd::AsRawFd;

use crate::netdev;

/// One offload or other feature of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// In effect now.
    pub active: bool,
    /// Whether the driver lets it be changed; `ethtool -k` says `[fixed]` of the others.
    pub changeable: bool,
}

/// Channels (queues with their interrupts) of a device. What counts receive queues is
/// `rx + combined`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Receive only, in use.
    pub rx: u32,
    /// Transmit only, in use.
    pub tx: u32,
    /// Receive and transmit, in use.
    pub combined: u32,
    /// The most that `rx` can be.
    pub max_rx: u32,
    /// The most that `tx` can be.
    pub max_tx: u32,
    /// The most that `combined` can be.
    pub max_combined: u32,
}

/// Hardware descriptor rings of a device, in descriptors per queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Receive, now.
    pub rx: u32,
    /// Transmit, now.
    pub tx: u32,
    /// The most that `rx` can be.
    pub max_rx: u32,
    /// The most that `tx` can be.
    pub max_tx: u32,
}

/// What drives a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its name: `ice`, `mlx5_core`, `veth`, `tun`…
    pub name: String,
    /// Its version; that of the kernel for most.
    pub version: String,
    /// Firmware version; empty or `N/A` without any.
    pub firmware: String,
    /// Where it sits, such as a PCI address; empty for what is no hardware.
    pub bus: String,
}

/// The driver of a device.
///
/// # Errors
/// ENODEV without the device, EOPNOTSUPP when the driver does not say.
pub fn driver(device: &str) -> io::Result<Driver> {
    let mut words = [0; 49]; // struct ethtool_drvinfo, 196 octets
    words[0] = ETHTOOL_GDRVINFO;
    // SAFETY: GDRVINFO writes one ethtool_drvinfo, which `words` has room for.
    unsafe { call(device, &mut words) }?;
    let octets = octets(&words);
    Ok(Driver {
        name: text(&octets[4..36]),
        version: text(&octets[36..68]),
        firmware: text(&octets[68..100]),
        bus: text(&octets[100..132]),
    })
}

/// The channels of a device.
///
/// # Errors
/// ENODEV without the device, EOPNOTSUPP when the driver has no such notion.
pub fn channels(device: &str) -> io::Result<Channels> {
    let mut words = [0; 9]; // struct ethtool_channels
    words[0] = ETHTOOL_GCHANNELS;
    // SAFETY: GCHANNELS writes one ethtool_channels, which `words` is.
    unsafe { call(device, &mut words) }?;
    let [_, max_rx, max_tx, _, max_combined, rx, tx, _, combined] = words;
    Ok(Channels { rx, tx, combined, max_rx, max_tx, max_combined })
}

/// The hardware rings of a device.
///
/// # Errors
/// ENODEV without the device, EOPNOTSUPP when it has none.
pub fn rings(device: &str) -> io::Result<Rings> {
    let mut words = [0; 9]; // struct ethtool_ringparam
    words[0] = ETHTOOL_GRINGPARAM;
    // SAFETY: GRINGPARAM writes one ethtool_ringparam, which `words` is.
    unsafe { call(device, &mut words) }?;
    let [_, max_rx, _, _, max_tx, rx, _, _, tx] = words;
    Ok(Rings { rx, tx, max_rx, max_tx })
}

/// The speed of the link in Mbit/s; `None` while there is no carrier and where the driver does not know.
///
/// # Errors
/// ENODEV without the device, EOPNOTSUPP when the driver has no such notion.
pub fn speed_mbps(device: &str) -> io::Result<Option<u32>> {
    // struct ethtool_link_settings: 12 words, then three masks of `words_per_mask` words each.
    let mut words = [0; 12 + 3 * MASK_WORDS_MAX];
    words[0] = ETHTOOL_GLINKSETTINGS;
    // SAFETY: asked with masks of no words, GLINKSETTINGS writes the 12 words at most,
    // which `words` has room for.
    unsafe { call(device, &mut words) }?;
    // The kernel answers minus the number of words it wants (octet 15); all else is zero.
    let wanted = octets(&words)[15] as i8;
    let Ok(mask_words @ 1..=127) = u8::try_from(-i16::from(wanted)) else {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    };
    words.fill(0);
    words[0] = ETHTOOL_GLINKSETTINGS;
    words[3] = u32::from_ne_bytes([0, 0, 0, mask_words]);
    // SAFETY: GLINKSETTINGS writes 12 words and three masks of `mask_words`, at most 127, words;
    // `words` has room for that.
    unsafe { call(device, &mut words) }?;
    // SPEED_UNKNOWN is -1; virtual drivers say 0 too.
    Ok(Some(words[1]).filter(|&speed| speed != 0 && speed != u32::MAX))
}

/// The state of the feature of that name, in the words of `ethtool -k` or rather of the
/// kernel: `rx-vlan-hw-parse`, `rx-gro`, `rx-lro`. `None` when this kernel has no such feature.
///
/// # Errors
/// ENODEV without the device.
pub fn feature(device: &str, name: &str) -> io::Result<Option<Feature>> {
    let Some(bit) = feature_bit(device, name)? else {
        return Ok(None);
    };
    let blocks = bit / 32 + 1;
    // struct ethtool_gfeatures: command, number of blocks, and per block available,
    // requested, active, never_changed.
    let mut words = vec![0; 2 + 4 * blocks];
    words[0] = ETHTOOL_GFEATURES;
    words[1] = blocks as u32;
    // SAFETY: GFEATURES writes no more blocks than the `blocks` that the second word
    // names, and `words` has room for those.
    unsafe { call(device, &mut words) }?;
    let [available, _, active, never_changed] = words[2 + 4 * (bit / 32)..][..4] else {
        unreachable!("a slice of four words")
    };
    let mask = 1 << (bit % 32);
    Ok(Some(Feature { active: active & mask != 0, changeable: available & !never_changed & mask != 0 }))
}

/// Asks for a feature to be on or off. Whether it then is, is for [`feature`] to say: the
/// kernel records wishes that it cannot fulfil now.
///
/// # Errors
/// ENODEV without the device, EPERM without CAP_NET_ADMIN, EOPNOTSUPP when this kernel or
/// driver does not let it be changed.
pub fn set_feature(device: &str, name: &str, on: bool) -> io::Result<()> {
    let unsupported = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let bit = feature_bit(device, name)?.ok_or_else(unsupported)?;
    // The kernel wants exactly the blocks it has, one per 32 features.
    let blocks = feature_count(device)?.div_ceil(32);
    // struct ethtool_sfeatures: command, number of blocks, and per block valid, requested.
    let mut words = vec![0; 2 + 2 * blocks];
    words[0] = ETHTOOL_SFEATURES;
    words[1] = blocks as u32;
    let mask = 1 << (bit % 32);
    words[2 + 2 * (bit / 32)] = mask;
    words[2 + 2 * (bit / 32) + 1] = if on { mask } else { 0 };
    // SAFETY: SFEATURES writes nothing and reads the `blocks` that the second word names,
    // which `words` holds.
    let outcome = unsafe { call(device, &mut words) }?;
    if outcome & ETHTOOL_F_UNSUPPORTED != 0 {
        return Err(unsupported());
    }
    Ok(())
}

/// The place of a feature in the kernel's list.
fn feature_bit(device: &str, name: &str) -> io::Result<Option<usize>> {
    let count = feature_count(device)?;
    // struct ethtool_gstrings: command, set, length, then names of 32 octets each.
    let mut words = vec![0; 3 + 8 * count];
    words[0] = ETHTOOL_GSTRINGS;
    words[1] = ETH_SS_FEATURES;
    words[2] = count as u32;
    // SAFETY: GSTRINGS of the features writes as many names as GSSET_INFO counts: the
    // list is fixed when the kernel is built. `words` has room for those.
    unsafe { call(device, &mut words) }?;
    let octets = octets(&words[3..]);
    Ok(octets.chunks_exact(32).position(|chunk| text(chunk) == name))
}

/// How many features this kernel knows.
fn feature_count(device: &str) -> io::Result<usize> {
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, one count for each bit.
    let mut words = [0; 5];
    words[0] = ETHTOOL_GSSET_INFO;
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    words[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    words[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    // SAFETY: GSSET_INFO writes the four fixed words and one count for the one bit that
    // is set, which `words` has room for.
    unsafe { call(device, &mut words) }?;
    Ok(words[4] as usize)
}

/// One ethtool command on the device, in the calling thread's namespace; what the kernel returned.
///
/// # Safety
/// `words` begins with the command and has room for all that the kernel writes for it.
unsafe fn call(device: &str, words: &mut [u32]) -> io::Result<u32> {
    let mut request = netdev::request(device)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let socket = netdev::probe()?;
    // SAFETY: SIOCETHTOOL reads one ifreq, which `request` is, and follows its data
    // pointer to `words`, exclusively ours until the call returns, with room as the
    // caller promises.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn octets(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A string of C in a field of fixed length.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&octet| octet == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
const ETH_SS_FEATURES: u32 = 4;
const ETHTOOL_F_UNSUPPORTED: u32 = 1;
/// The number of words is a signed octet.
const MASK_WORDS_MAX: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::{Capability, testable};
    use crate::tun::{Kind, Tun};

    /// A TAP in a namespace of its own.
    fn with_tap(story: impl FnOnce() + Send) {
        if testable(Capability::NetAdmin) && testable(Capability::SysAdmin) {
            crate::netns::in_new(|| {
                let _tap = Tun::open("tap0", Kind::Tap).expect("the namespace is ours");
                story();
            })
            .expect("we may unshare");
        }
    }

    #[test]
    fn says_what_drives_a_device() {
        with_tap(|| {
            let driver = driver("tap0").expect("tun answers");
            assert_eq!((driver.name.as_str(), driver.bus.as_str()), ("tun", "tap"));
            assert!(speed_mbps("tap0").expect("tun answers").is_some());
        });
    }

    #[test]
    fn a_feature_changes_and_changes_back() {
        with_tap(|| {
            let now = || feature("tap0", "rx-gro").expect("there").expect("known");
            assert_eq!(now(), Feature { active: true, changeable: true });
            set_feature("tap0", "rx-gro", false).expect("changeable");
            assert!(!now().active);
            set_feature("tap0", "rx-gro", true).expect("changeable");
            assert!(now().active);
        });
    }

    #[test]
    fn a_fixed_feature_says_so_and_stays() {
        with_tap(|| {
            let now = || feature("tap0", "rx-vlan-hw-parse").expect("there");
            let before = now().expect("known");
            assert!(!before.changeable);
            let error = set_feature("tap0", "rx-vlan-hw-parse", !before.active).expect_err("the driver has it fixed");
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
            assert_eq!(now(), Some(before));
        });
    }

    #[test]
    fn what_is_not_there_is_enodev_and_what_nobody_knows_is_none() {
        assert_eq!(driver("px-none").expect_err("no such device").raw_os_error(), Some(libc::ENODEV));
        assert_eq!(feature("lo", "rx-telepathy").expect("lo is there"), None);
        assert!(channels("lo").is_err() && rings("lo").is_err());
    }
}
