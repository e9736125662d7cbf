//! Network interfaces by their classic ioctls.

use std::net::Ipv4Addr;

use super::fd::Fd;
use super::{Sys, check, socket};

/// A socket through which interfaces are set up.
pub(crate) struct Control(Fd);

/// A route as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) destination: Ipv4Addr,
    pub(crate) mask: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
}

impl Control {
    pub(crate) fn new() -> Sys<Self> {
        socket::datagram().map(Self)
    }

    /// Sets the address of an interface.
    pub(crate) fn set_address(&self, name: &[u8], address: Ipv4Addr) -> Sys<()> {
        self.with_address(name, libc::SIOCSIFADDR, address)
    }

    /// Sets the mask of an interface's network.
    pub(crate) fn set_mask(&self, name: &[u8], mask: Ipv4Addr) -> Sys<()> {
        self.with_address(name, libc::SIOCSIFNETMASK, mask)
    }

    /// Brings an interface up.
    pub(crate) fn bring_up(&self, name: &[u8]) -> Sys<()> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the flags are the member that the call above filled.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        // Constants of the kernel's interface, well within the field.
        request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Adds a route; one that is there already is fine.
    pub(crate) fn add_route(&self, name: &[u8], route: KernelRoute) -> Sys<()> {
        match self.route(libc::SIOCADDRT, name, route) {
            Err(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a route.
    pub(crate) fn remove_route(&self, name: &[u8], route: KernelRoute) -> Sys<()> {
        self.route(libc::SIOCDELRT, name, route)
    }

    fn route(&self, what: libc::c_ulong, name: &[u8], route: KernelRoute) -> Sys<()> {
        let name = super::c_string(name)?;
        // SAFETY: zero is a valid value for every field of this plain structure.
        let mut entry: libc::rtentry = unsafe { std::mem::zeroed() };
        entry.rt_dst = socket_address(route.destination);
        entry.rt_genmask = socket_address(route.mask);
        entry.rt_gateway = socket_address(route.gateway);
        entry.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        if route.mask == Ipv4Addr::BROADCAST {
            entry.rt_flags |= libc::RTF_HOST;
        }
        entry.rt_dev = name.as_ptr().cast_mut();
        // SAFETY: the entry and the name in it are valid during the call.
        check(unsafe { libc::ioctl(self.0.raw(), what, &raw mut entry) }).map(drop)
    }

    fn with_address(&self, name: &[u8], what: libc::c_ulong, address: Ipv4Addr) -> Sys<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(what, &mut request)
    }

    fn call(&self, what: libc::c_ulong, request: &mut libc::ifreq) -> Sys<()> {
        // SAFETY: the request is valid during the call.
        check(unsafe { libc::ioctl(self.0.raw(), what, std::ptr::from_mut(request)) }).map(drop)
    }
}

fn request(name: &[u8]) -> Sys<libc::ifreq> {
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(libc::ENODEV);
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name) {
        *target = libc::c_char::from_ne_bytes([*byte]);
    }
    Ok(request)
}

/// An IPv4 address inside the general form: family, port, then the four bytes.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut general: libc::sockaddr = unsafe { std::mem::zeroed() };
    general.sa_family = libc::AF_INET as libc::sa_family_t;
    for (target, byte) in general.sa_data[2..].iter_mut().zip(address.octets()) {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    general
}
