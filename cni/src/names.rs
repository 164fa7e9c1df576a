//! Names and addresses of devices, as text.

use sha2::{Digest, Sha256};

use crate::request::AttachmentId;

/// Name of an attachment's host end: `lxc` and the first 12 hex digits of the SHA-256 of `CONTAINERID:IFNAME`.
///
/// It follows from the attachment alone, so DEL finds the device without anything stored.
///
/// # Examples
/// ```
/// use kinesin_cni::{names::host_end, request::AttachmentId};
///
/// let id = AttachmentId { container_id: "4f5e".to_owned(), ifname: "eth0".to_owned() };
/// assert_eq!(host_end(&id), "lxc6a98cfd6ff60");
/// ```
#[must_use]
pub fn host_end(id: &AttachmentId) -> String {
    let digest = Sha256::digest(format!("{}:{}", id.container_id, id.ifname));
    format!("lxc{}", &hex::encode(digest)[..12])
}

/// A MAC address as text, such as `02:00:5e:10:00:ff`.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a MAC address of six pairs of hex digits with colons.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_as_they_are_written() {
        let mac = [0x02, 0, 0x5e, 0x10, 0, 0xff];
        assert_eq!(parse_mac(&mac_text(mac)), Some(mac));
        for wrong in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:00:5e:10:00:ff", "02:00:5e:10:00:+f", "g2:0:0:0:0:0"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn host_ends_differ_per_interface_and_fit_a_device_name() {
        let name = |container: &str, interface: &str| {
            host_end(&AttachmentId { container_id: container.to_owned(), ifname: interface.to_owned() })
        };
        assert_eq!(name("a", "eth0").len(), 15);
        assert_ne!(name("a", "eth0"), name("a", "eth1"));
        assert_ne!(name("a", "eth0"), name("b", "eth0"));
    }
}
