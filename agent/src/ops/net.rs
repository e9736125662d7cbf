//! Setting up the network of the guest (E-083, L-169).

use std::net::Ipv4Addr;

use provium_protocol::ops::{HostEntry, NetConfigure, NicConfig, NicName};
use provium_protocol::{Error, ErrorKind};

use crate::boot::modules;
use crate::sys::netif::{Control, KernelRoute};
use crate::sys::{Errno, file};

/// Around what we keep in the hosts file.
const BEGIN: &str = "# provium: begin\n";
const END: &str = "# provium: end\n";

const INTERFACES: &[u8] = b"/sys/class/net";

/// `net_configure`. Doing it again with other values moves everything to those.
pub(super) fn configure(op: &NetConfigure) -> Result<Vec<NicName>, Error> {
    modules::load_for_devices();
    let control = Control::new().map_err(|errno| Error::os("socket", errno))?;
    let mut names = Vec::with_capacity(op.nics.len());
    for nic in &op.nics {
        let name = interface(&nic.mac)?;
        configure_one(&control, &name, nic)?;
        let ifname = String::from_utf8_lossy(&name).into_owned();
        names.push(NicName {
            mac: nic.mac.clone(),
            ifname,
        });
    }
    write_hosts(&op.hosts)?;
    write_resolver(&op.nics)?;
    Ok(names)
}

/// The interface with a hardware address.
fn interface(mac: &str) -> Result<Vec<u8>, Error> {
    let all = file::list(INTERFACES).map_err(|errno| Error::os("list", errno).about(INTERFACES))?;
    let found = all.into_iter().map(|(name, _)| name).find(|name| {
        let path = [INTERFACES, b"/", name.as_slice(), b"/address"].concat();
        let address = file::contents(&path).unwrap_or_default();
        address.trim_ascii().eq_ignore_ascii_case(mac.as_bytes())
    });
    found.ok_or_else(|| {
        let message = format!(
            "no network interface has the address `{}`",
            mac.escape_debug()
        );
        Error::new(ErrorKind::Os, message)
    })
}

fn configure_one(control: &Control, name: &[u8], nic: &NicConfig) -> Result<(), Error> {
    let failed = |what: &'static str| move |errno: Errno| Error::os(what, errno).about(name);
    let address = parse(&nic.address, "address")?;
    control
        .set_address(name, address)
        .map_err(failed("set address"))?;
    control
        .set_mask(name, mask(nic.prefix)?)
        .map_err(failed("set mask"))?;
    control.bring_up(name).map_err(failed("bring up"))?;
    let mut wanted = Vec::new();
    for route in &nic.routes {
        wanted.push(KernelRoute {
            destination: parse(&route.address, "routes.address")?,
            mask: mask(route.prefix)?,
            gateway: parse(&route.via, "routes.via")?,
        });
    }
    if let Some(gateway) = &nic.default {
        wanted.push(KernelRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            mask: Ipv4Addr::UNSPECIFIED,
            gateway: parse(gateway, "default")?,
        });
    }
    for route in gateway_routes(name) {
        if !wanted.contains(&route) {
            control
                .remove_route(name, route)
                .map_err(failed("remove route"))?;
        }
    }
    for route in wanted {
        control
            .add_route(name, route)
            .map_err(failed("add route"))?;
    }
    Ok(())
}

/// Routes through gateways that the kernel has for an interface.
fn gateway_routes(name: &[u8]) -> Vec<KernelRoute> {
    let table = file::contents(b"/proc/net/route").unwrap_or_default();
    let lines = table.split(|byte| *byte == b'\n').skip(1);
    lines.filter_map(|line| parse_route(line, name)).collect()
}

/// A line of the kernel's table: interface, destination, gateway, flags, ..., mask as the eighth,
/// addresses as hexadecimal words in memory order.
fn parse_route(line: &[u8], name: &[u8]) -> Option<KernelRoute> {
    let fields: Vec<&[u8]> = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
        .collect();
    let address = |index: usize| {
        let text = std::str::from_utf8(fields.get(index)?).ok()?;
        u32::from_str_radix(text, 16)
            .ok()
            .map(|word| Ipv4Addr::from(word.to_ne_bytes()))
    };
    let gateway = address(2).filter(|gateway| !gateway.is_unspecified())?;
    (*fields.first()? == name).then_some(())?;
    Some(KernelRoute {
        destination: address(1)?,
        mask: address(7)?,
        gateway,
    })
}

fn parse(text: &str, field: &str) -> Result<Ipv4Addr, Error> {
    let bad = || {
        format!(
            "field `{field}`: `{}` is no IPv4 address",
            text.escape_debug()
        )
    };
    text.parse()
        .map_err(|_| Error::new(ErrorKind::BadArgs, bad()))
}

fn mask(prefix: u32) -> Result<Ipv4Addr, Error> {
    match prefix {
        0 => Ok(Ipv4Addr::UNSPECIFIED),
        1..=32 => Ok(Ipv4Addr::from_bits(u32::MAX << (32 - prefix))),
        _ => Err(Error::new(
            ErrorKind::BadArgs,
            format!("field `prefix`: {prefix} is above 32"),
        )),
    }
}

/// Keeps our part of the hosts file, leaving the rest of it alone.
fn write_hosts(hosts: &[HostEntry]) -> Result<(), Error> {
    let path = b"/etc/hosts";
    let old = match file::contents(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => "127.0.0.1\tlocalhost\n".to_owned(),
    };
    let lines = hosts
        .iter()
        .map(|host| format!("{}\t{}\n", host.address, host.names.join(" ")));
    let new = merge_hosts(&old, &lines.collect::<String>());
    if new == old {
        return Ok(());
    }
    put(path, new.as_bytes())
}

fn merge_hosts(old: &str, ours: &str) -> String {
    let (before, after) = match old.split_once(BEGIN) {
        Some((before, rest)) => (before, rest.split_once(END).map_or("", |(_, after)| after)),
        None => (old, ""),
    };
    let newline = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    match ours {
        "" => format!("{before}{after}"),
        _ => format!("{before}{newline}{BEGIN}{ours}{END}{after}"),
    }
}

/// Points the resolver at the bridges' name servers, if any of them has one.
fn write_resolver(nics: &[NicConfig]) -> Result<(), Error> {
    let mut servers: Vec<&String> = nics
        .iter()
        .flat_map(|nic| nic.dns.iter().flatten())
        .collect();
    servers.dedup();
    if servers.is_empty() {
        return Ok(());
    }
    let text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    put(b"/etc/resolv.conf", text.as_bytes())
}

/// Writes a file of /etc, which a small image may not have.
fn put(path: &[u8], text: &[u8]) -> Result<(), Error> {
    let failed = |errno: Errno| Error::os("write", errno).about(path);
    match file::mkdir(b"/etc", 0o755) {
        Ok(()) | Err(libc::EEXIST) => file::put_contents(path, text).map_err(failed),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L-169: the rest of the hosts file stays, and doing it again changes nothing.
    #[test]
    fn our_part_of_the_hosts_file_is_replaced() {
        let first = merge_hosts("127.0.0.1 localhost", "10.0.0.1 a\n");
        assert_eq!(
            first,
            format!("127.0.0.1 localhost\n{BEGIN}10.0.0.1 a\n{END}")
        );
        assert_eq!(merge_hosts(&first, "10.0.0.1 a\n"), first);
        assert_eq!(merge_hosts(&first, ""), "127.0.0.1 localhost\n");
        let appended = format!("{first}10.9.9.9 mine\n");
        let second = merge_hosts(&appended, "10.0.0.2 b\n");
        assert!(second.ends_with("10.9.9.9 mine\n") && second.contains("10.0.0.2 b"));
    }

    #[test]
    fn the_kernels_route_table_is_understood() {
        let line = b"eth0\t0001010A\t0100000A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let route = parse_route(line, b"eth0").unwrap();
        assert_eq!(route.destination, Ipv4Addr::new(10, 1, 1, 0));
        assert_eq!(route.gateway, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(route.mask, Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(parse_route(line, b"eth1"), None);
        assert_eq!(
            parse_route(b"eth0\t0000000A\t00000000\t0001", b"eth0"),
            None
        );
        assert_eq!(parse_route(b"", b"eth0"), None);
    }

    #[test]
    fn masks_follow_prefixes() {
        assert_eq!(mask(24).unwrap(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(mask(0).unwrap(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(mask(32).unwrap(), Ipv4Addr::BROADCAST);
        assert!(mask(33).is_err());
    }
}
