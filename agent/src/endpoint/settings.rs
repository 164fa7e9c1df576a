//! What a pod's kernel is told about the way to other nodes, and the order in which that changes while the pod runs: pure.
//!
//! MTUs and offloads follow the carriers in use and the uplink. What becomes narrower does so in every pod before a packet
//! goes the new way, what becomes wider only after the last packet of the old one: that is what the steps are for.

use kinesin_agent_api::types::EndpointNetworking;
use serde::{Deserialize, Serialize};

/// The part of a pod's network that changes while the pod runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// MTU of both ends of the pod's pair in bytes.
    pub(crate) device_mtu: u32,
    /// MTU of the pod's default routes in bytes.
    pub(crate) route_mtu: u32,
    /// Whether the pod's kernel splits superpackets that no tunnel can carry.
    pub(crate) no_udp_segmentation: bool,
}

/// One step on the way from what pods have to what they shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// What pods send becomes smaller.
    SendLess,
    /// Their devices become narrower: later, since until then another pod of the node sends what they would not take.
    TakeLess,
    /// Their devices become wider.
    TakeMore,
    /// What they send becomes larger.
    SendMore,
}

impl Step {
    /// Before anything of the new state is in use.
    pub(crate) const NARROWER: [Self; 2] = [Self::SendLess, Self::TakeLess];
    /// After the last of the former state is gone; then pods have what they shall have.
    pub(crate) const WIDER: [Self; 2] = [Self::TakeMore, Self::SendMore];

    /// What a pod that has `have` gets by this step.
    pub(crate) fn target(self, have: Settings, want: Settings) -> Settings {
        match self {
            Self::SendLess => Settings {
                route_mtu: have.route_mtu.min(want.route_mtu),
                no_udp_segmentation: have.no_udp_segmentation || want.no_udp_segmentation,
                ..have
            },
            Self::TakeLess => Settings { device_mtu: have.device_mtu.min(want.device_mtu), ..have },
            Self::TakeMore => Settings { device_mtu: want.device_mtu, ..have },
            Self::SendMore => want,
        }
    }
}

impl Settings {
    /// What the plugin was told, or the agent has done since.
    pub(crate) fn of(networking: &EndpointNetworking) -> Self {
        Self {
            device_mtu: networking.device_mtu,
            route_mtu: networking.route_mtu,
            no_udp_segmentation: networking.no_udp_segmentation,
        }
    }

    /// Notes it as what the pod has.
    pub(crate) fn write_to(self, networking: &mut EndpointNetworking) {
        networking.device_mtu = self.device_mtu;
        networking.route_mtu = self.route_mtu;
        networking.no_udp_segmentation = self.no_udp_segmentation;
    }

    /// What a pod gets that starts between the steps: nothing that is too much before or after them.
    pub(crate) fn narrowed(self, want: Self) -> Self {
        Step::NARROWER.into_iter().fold(self, |have, step| step.target(have, want))
    }
}

/// The MTU that something gets which has `found`. What is none of `ours` was set by somebody else, by the `mtu` of the
/// runtime's configuration for example, or in the pod: it stays, unless it is too much now.
pub(crate) fn settled(found: u32, ours: &[u32], to: u32) -> u32 {
    if ours.contains(&found) { to } else { found.min(to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(device_mtu: u32, route_mtu: u32, no_udp_segmentation: bool) -> Settings {
        Settings { device_mtu, route_mtu, no_udp_segmentation }
    }

    #[test]
    fn narrower_comes_first_and_wider_last_and_after_all_steps_everything_is_as_wanted() {
        let all = [
            settings(1500, 1500, false),
            settings(1500, 1450, true),
            settings(1400, 1400, false),
            settings(9000, 8930, true),
            settings(1400, 1350, false),
        ];
        for before in all {
            for want in all {
                let narrow = before.narrowed(want);
                assert!(narrow.route_mtu <= before.route_mtu.min(want.route_mtu), "{before:?} to {want:?}: {narrow:?}");
                assert!(narrow.device_mtu <= before.device_mtu.min(want.device_mtu), "{before:?} to {want:?}");
                assert_eq!(
                    narrow.no_udp_segmentation,
                    before.no_udp_segmentation || want.no_udp_segmentation,
                    "{before:?} to {want:?}"
                );
                let wide = Step::WIDER.into_iter().fold(narrow, |have, step| step.target(have, want));
                assert_eq!(wide, want, "from {before:?}");
            }
        }
    }

    #[test]
    fn what_pods_send_never_exceeds_what_devices_take_between_the_steps() {
        let (large, small) = (settings(1500, 1500, false), settings(1400, 1350, true));
        for (before, want) in [(large, small), (small, large)] {
            let mut have = before;
            for step in Step::NARROWER.into_iter().chain(Step::WIDER) {
                have = step.target(have, want);
                assert!(have.route_mtu <= have.device_mtu, "{step:?} from {before:?} to {want:?}: {have:?}");
            }
        }
    }

    #[test]
    fn what_somebody_else_has_set_is_only_ever_lowered() {
        assert_eq!(settled(1500, &[1500], 1450), 1450);
        assert_eq!(settled(1450, &[1450], 1500), 1500);
        assert_eq!(settled(1300, &[1450], 1500), 1300);
        assert_eq!(settled(1300, &[1500], 1450), 1300);
        assert_eq!(settled(1300, &[1500], 1280), 1280);
        // An attempt that ended half-way has left the one or the other.
        assert_eq!(settled(1450, &[1500, 1450], 1480), 1480);
    }
}
