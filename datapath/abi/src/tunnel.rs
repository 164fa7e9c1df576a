//! What a tunnel's packets have on the wire, whether our programs put them on or the kernel's device, which is told.

/// The source ports: first and last. They are the dynamic ports (RFC 6335 section 6), as RFC 7348 section 5 and RFC 8926
/// section 3.3 recommend. A kernel's device leaves out the last one (`udp_flow_src_port`, Linux 6.18 `include/net/udp.h`).
pub const SOURCE_PORTS: (u16, u16) = (0xc000, 0xffff);

/// Where frames go inside. Nobody looks at it, so it tells nothing of the pod; it is locally administered (IEEE 802), and a
/// device that is to understand us can be given it.
pub const INNER_DESTINATION: [u8; 6] = [0x02, 0x4b, 0x49, 0x4e, 0x00, 0x01];

/// Where frames come from inside; as [`INNER_DESTINATION`].
pub const INNER_SOURCE: [u8; 6] = [0x02, 0x4b, 0x49, 0x4e, 0x00, 0x02];
