//! Why a packet was dropped: Cilium's numbers and texts, so that tools and dashboards go on working.
//!
//! Source: reference, section 7.4. Numbers below 128 are not drops; 0 is "forwarded".

/// The reason under which a packet is counted.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropReason(pub u8);

macro_rules! reasons {
    ($($name:ident = $number:literal $text:literal)*) => {
        impl DropReason {
            $(#[doc = concat!($text, ".")] pub const $name: Self = Self($number);)*

            /// Every reason that has a name, in the order of numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason in words; empty for a number without a meaning.
            ///
            /// # Examples
            /// ```
            /// assert_eq!(kinesin_abi::DropReason(132).text(), "Invalid source ip");
            /// ```
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "",
                }
            }
        }

        #[cfg(feature = "user")]
        pub(crate) const NUMBERS: &[(&str, u64)] = &[$((concat!("REASON_", stringify!($name)), $number),)*];
    };
}

reasons! {
    FORWARDED = 0 "Success"
    INVALID_SOURCE_MAC = 130 "Invalid source mac"
    INVALID_DESTINATION_MAC = 131 "Invalid destination mac"
    INVALID_SOURCE_IP = 132 "Invalid source ip"
    POLICY_DENIED = 133 "Policy denied"
    INVALID_PACKET = 134 "Invalid packet"
    CT_INVALID_HEADER = 135 "CT: Truncated or invalid header"
    FRAGMENTATION_NEEDED = 136 "Fragmentation needed"
    CT_UNKNOWN_L4 = 137 "CT: Unknown L4 protocol"
    CT_CANNOT_CREATE = 138 "CT: Can't create entry from packet"
    UNSUPPORTED_L3 = 139 "Unsupported L3 protocol"
    MISSED_TAIL_CALL = 140 "Missed tail call"
    WRITE_ERROR = 141 "Error writing to packet"
    UNKNOWN_L4 = 142 "Unknown L4 protocol"
    UNKNOWN_ICMP4_CODE = 143 "Unknown ICMPv4 code"
    UNKNOWN_ICMP4_TYPE = 144 "Unknown ICMPv4 type"
    UNKNOWN_ICMP6_CODE = 145 "Unknown ICMPv6 code"
    UNKNOWN_ICMP6_TYPE = 146 "Unknown ICMPv6 type"
    NO_TUNNEL_KEY = 147 "Error retrieving tunnel key"
    NO_TUNNEL_OPTION = 148 "Error retrieving tunnel options"
    INVALID_GENEVE = 149 "Invalid Geneve option"
    UNKNOWN_L3_TARGET = 150 "Unknown L3 target address"
    UNROUTABLE = 151 "Stale or unroutable IP"
    NO_LOCAL_CONTAINER = 152 "No matching local container found"
    CHECKSUM_L3 = 153 "Error while correcting L3 checksum"
    CHECKSUM_L4 = 154 "Error while correcting L4 checksum"
    CT_INSERT_FAILED = 155 "CT: Map insertion failed"
    IPV6_EXTENSION = 156 "Invalid IPv6 extension header"
    FRAGMENT_UNSUPPORTED = 157 "IP fragmentation not supported"
    NO_BACKEND = 158 "Service backend not found"
    NO_ENCAP_ENDPOINT = 160 "No tunnel/encapsulation endpoint (datapath BUG!)"
    NAT46_OFF = 161 "NAT 46/64 not enabled"
    EDT_HORIZON = 162 "Reached EDT rate-limiting drop horizon"
    CT_UNKNOWN_STATE = 163 "Unknown connection tracking state"
    HOST_UNREACHABLE = 164 "Local host is unreachable"
    NO_POLICY_CONFIG = 165 "No configuration available to perform policy decision"
    UNSUPPORTED_L2 = 166 "Unsupported L2 protocol"
    NAT_NO_MAPPING = 167 "No mapping for NAT masquerade"
    NAT_UNSUPPORTED = 168 "Unsupported protocol for NAT masquerade"
    FIB_FAILED = 169 "FIB lookup failed"
    ENCAP_PROHIBITED = 170 "Encapsulation traffic is prohibited"
    INVALID_IDENTITY = 171 "Invalid identity"
    UNKNOWN_SENDER = 172 "Unknown sender"
    NAT_NOT_NEEDED = 173 "NAT not needed"
    IS_CLUSTER_IP = 174 "Is a ClusterIP"
    FRAGMENT_NOT_FOUND = 175 "First logical datagram fragment not found"
    FORBIDDEN_ICMP6 = 176 "Forbidden ICMPv6 message"
    NOT_IN_SOURCE_RANGE = 177 "Denied by LB src range check"
    SOCKET_LOOKUP = 178 "Socket lookup failed"
    SOCKET_ASSIGN = 179 "Socket assign failed"
    PROXY_UNKNOWN_PROTOCOL = 180 "Proxy redirection not supported for protocol"
    POLICY_DENY_RULE = 181 "Policy denied by denylist"
    VLAN_FILTERED = 182 "VLAN traffic disallowed by VLAN filter"
    INVALID_VNI = 183 "Incorrect VNI from VTEP"
    INVALID_TC_BUFFER = 184 "Failed to update or lookup TC buffer"
    NO_SID = 185 "No SID was found for the IP address"
    MISSING_SRV6_STATE = 186 "SRv6 state was removed during tail call"
    NAT46_FAILED = 187 "L3 translation from IPv4 to IPv6 failed (NAT46)"
    NAT64_FAILED = 188 "L3 translation from IPv6 to IPv4 failed (NAT64)"
    AUTH_REQUIRED = 189 "Authentication required"
    NO_CT_MAP = 190 "No conntrack map found"
    NO_NAT_MAP = 191 "No nat map found"
    INVALID_CLUSTER = 192 "Invalid ClusterID"
    DSR_ENCAP_UNSUPPORTED = 193 "Unsupported packet protocol for DSR encapsulation"
    NO_EGRESS_GATEWAY = 194 "No egress gateway found"
    UNENCRYPTED = 195 "Traffic is unencrypted"
    TTL_EXCEEDED = 196 "TTL exceeded"
    NO_NODE_ID = 197 "No node ID found"
    RATE_LIMITED = 198 "Rate limited"
    IGMP_HANDLED = 199 "IGMP handled"
    IGMP_SUBSCRIBED = 200 "IGMP subscribed"
    MULTICAST_HANDLED = 201 "Multicast handled"
    HOST_NOT_READY = 202 "Host datapath not ready"
    ENDPOINT_NOT_READY = 203 "Endpoint policy program not available"
    NO_EGRESS_IP = 204 "No Egress IP configured"
    PUNT_PROXY = 205 "Punt to proxy"
}

impl DropReason {
    /// Whether packets of this reason go no further.
    #[must_use]
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self.0 >= 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_reason_has_words_and_its_own_number() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert!(!reason.text().is_empty());
            assert!(DropReason::ALL[i + 1..].iter().all(|other| other > reason));
        }
    }
}
