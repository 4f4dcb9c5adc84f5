//! Names and numbers of network devices.

use std::io;

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};

/// Longest device name in octets (IFNAMSIZ less its NUL).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// The name of the device with that index, in the namespace of the calling thread.
///
/// # Errors
/// ENODEV when there is none.
pub fn name(ifindex: u32) -> io::Result<String> {
    Ok(netdevice::index_to_name(probe()?, ifindex)?)
}

/// The index of the device of that name, in the namespace of the calling thread.
///
/// # Errors
/// ENODEV when there is none.
pub fn index(name: &str) -> io::Result<u32> {
    Ok(netdevice::name_to_index(probe()?, name)?)
}

/// Sets the receive buffer of a socket, in octets of kernel memory (a small packet takes
/// about 1,000). With CAP_NET_ADMIN to that, else to as much of it as `net.core.rmem_max` allows.
///
/// # Errors
/// As setsockopt(2); none is known for an open socket.
pub fn set_receive_buffer(socket: &impl AsFd, octets: usize) -> io::Result<()> {
    sockopt::set_socket_recv_buffer_size_force(socket, octets)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, octets))?;
    Ok(())
}

/// Any socket carries the device ioctls; which one decides only the namespace.
pub(crate) fn probe() -> io::Result<rustix::fd::OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// `name` as an ifreq has it.
///
/// # Errors
/// EINVAL when it is empty, longer than [`NAME_MAX`], or has a NUL within.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_MAX || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an ifreq is integers, arrays of them and a raw pointer, in a union; all
    // zeros is a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_number() {
        let number = index("lo").expect("every namespace has lo");
        assert_eq!(name(number).expect("it is there"), "lo");
    }

    #[test]
    fn what_is_not_there_is_enodev() {
        let error = index("px-none").expect_err("no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let error = name(u32::MAX / 2).expect_err("no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_receive_buffer_is_as_large_as_asked_beyond_the_limit_of_users() {
        if !crate::caps::testable(crate::caps::Capability::NetAdmin) {
            return;
        }
        let socket = probe().expect("a descriptor is free");
        set_receive_buffer(&socket, 16 << 20).expect("open");
        let size = sockopt::socket_recv_buffer_size(&socket).expect("open");
        // The kernel doubles it for its own bookkeeping.
        assert_eq!(size, 32 << 20);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_not_cut() {
        for name in ["", "sixteen-letters-", "nul\0inside"] {
            assert!(request(name).is_err(), "{name:?}");
        }
        assert!(request("fifteen-letters").is_ok());
    }
}
