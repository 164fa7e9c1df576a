//! What became of packets, above all why they were dropped. Numbers and texts as the reference has them (7.4), so that
//! dashboards go on working.

/// Number under which forwarded packets are counted.
pub const FORWARDED: u8 = 0;
/// Number under which the signalling of a link is counted, which ends there: neighbour discovery that asks for no answer
/// and group membership. The reference uses the numbers up to 14 of those that are no drops.
pub const SIGNALLING: u8 = 120;
/// The first number of a drop.
pub const FIRST_DROP: u8 = 130;
const _: () = assert!(FORWARDED < FIRST_DROP && SIGNALLING < FIRST_DROP);

/// What a number under which packets are counted means, in words.
#[must_use]
pub const fn text_of(number: u8) -> Option<&'static str> {
    match (number, DropReason::from_number(number)) {
        (FORWARDED, _) => Some("Success"),
        (SIGNALLING, _) => Some("Link signalling"),
        (_, Some(reason)) => Some(reason.text()),
        _ => None,
    }
}

/// Direction of a packet, seen from the endpoint.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress = 0,
    /// From the endpoint.
    Egress = 1,
}

macro_rules! reasons {
    ($( $(#[$meta:meta])* $name:ident = $number:literal, $text:literal; )+) => {
        /// Why a packet was dropped.
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $( $(#[$meta])* $name = $number, )+
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The reason in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )+
                }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// The source address is not the endpoint's own.
    InvalidSource = 132, "Invalid source ip";
    /// Policy does not allow it.
    PolicyDenied = 133, "Policy denied";
    /// The headers contradict each other or are cut short.
    InvalidPacket = 134, "Invalid packet";
    /// The transport header is cut short.
    TruncatedTransport = 135, "CT: Truncated or invalid header";
    /// Too big for the way out.
    FragmentationNeeded = 136, "Fragmentation needed";
    /// Neither IPv4, IPv6 nor ARP.
    UnsupportedProtocol = 139, "Unsupported L3 protocol";
    /// A program array has no entry where it must have one.
    MissedTailCall = 140, "Missed tail call";
    /// The packet could not be rewritten.
    WriteError = 141, "Error writing to packet";
    /// A tunnel's header that is none: VXLAN with other flags than the one, Geneve of another version or for control, no
    /// Ethernet frame inside.
    InvalidTunnel = 147, "Error retrieving tunnel key";
    /// A Geneve option that must be understood (RFC 8926 section 3.4) and is not.
    GeneveOption = 149, "Invalid Geneve option";
    /// The address is no endpoint of this node and has no other place.
    Unroutable = 151, "Stale or unroutable IP";
    /// More or other extension headers than are followed.
    ExtensionHeader = 156, "Invalid IPv6 extension header";
    /// A fragment of a packet in a tunnel: tunnels set DF, and parts cannot be taken out of their encapsulation.
    Fragmented = 157, "IP fragmentation not supported";
    /// Nothing encapsulates for this carrier.
    NoTunnel = 160, "No tunnel/encapsulation endpoint (datapath BUG!)";
    /// The endpoint is not attached completely.
    NoConfiguration = 165, "No configuration available to perform policy decision";
    /// The way out has no device.
    FibFailed = 169, "FIB lookup failed";
    /// UDP to a node's tunnel port, from a pod, out of a tunnel, or to an address that no tunnel ends at.
    TunnelForbidden = 170, "Encapsulation traffic is prohibited";
    /// An identity that does not fit a tunnel's header, or that none may bring from outside: none at all, the node's own.
    InvalidIdentity = 171, "Invalid identity";
    /// A packet in a tunnel whose sender is no node of the cluster.
    UnknownSender = 172, "Unknown sender";
    /// Neighbour discovery that no pod has a reason to send: advertisements of routers and neighbours, redirects.
    ForbiddenIcmp6 = 176, "Forbidden ICMPv6 message";
    /// A frame with a VLAN tag: it would reach a VLAN of the underlay that its sender has no part in.
    VlanForbidden = 182, "VLAN traffic disallowed by VLAN filter";
    /// TTL or hop limit used up.
    TtlExceeded = 196, "TTL exceeded";
    /// More ICMP errors than the limit.
    RateLimited = 198, "Rate limited";
    /// Multicast or broadcast, which is not carried.
    Multicast = 201, "Multicast handled";
    /// Its tunnel packet was marked on the way as having met congestion, and it cannot carry the mark (RFC 6040 section
    /// 4.2). The reference leaves that to the kernel's devices and has no number for it.
    Congestion = 249, "Congestion mark on a packet that cannot carry it";
    /// A slot program asked for the drop without naming a reason.
    Slot = 250, "Dropped by a slot program";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_reasons_name_each_other() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
            assert!(!reason.text().is_empty());
        }
        for number in [FORWARDED, SIGNALLING] {
            assert_eq!(DropReason::from_number(number), None);
        }
    }

    #[test]
    fn drops_and_what_is_none_are_told_by_the_number() {
        assert!(DropReason::ALL.iter().all(|reason| *reason as u8 >= FIRST_DROP));
        assert_eq!(text_of(FORWARDED), Some("Success"));
        assert_eq!(text_of(DropReason::PolicyDenied as u8), Some("Policy denied"));
        assert_eq!(text_of(77), None);
    }
}
