//! What our filters run at the moment, so that those that are right are left alone.

use std::collections::BTreeMap;

use aya::programs::SchedClassifier;
use kinesin_loader::{Attachment, Direction, LoaderError, link};
use kinesin_netlink::{BpfFilter, Netlink, NetlinkError};

/// The number of the program that our filter runs, by device index and direction.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<(u32, Direction), u32>);

impl Filters {
    /// Reads those of some devices.
    pub(crate) async fn read(netlink: &Netlink, devices: impl Iterator<Item = u32>) -> Result<Self, NetlinkError> {
        let mut found = BTreeMap::new();
        for ifindex in devices {
            let both = [
                (Direction::Ingress, netlink.ingress_filters(ifindex).await?),
                (Direction::Egress, netlink.egress_filters(ifindex).await?),
            ];
            for (direction, filters) in both {
                if let Some(ours) = filters.iter().find(is_in_our_place) {
                    found.insert((ifindex, direction), ours.program);
                }
            }
        }
        Ok(Self(found))
    }

    /// Whether the filter at this place runs this program.
    pub(crate) fn is_running(
        &self,
        place: &Attachment,
        name: &str,
        program: &SchedClassifier,
    ) -> Result<bool, LoaderError> {
        let Some(found) = self.0.get(&(place.ifindex, place.direction)) else { return Ok(false) };
        let action = || format!("inspect program {name:?}");
        let info = program.info().map_err(|source| LoaderError::Program { action: action(), source })?;
        Ok(info.id() == *found)
    }
}

fn is_in_our_place(filter: &&BpfFilter) -> bool {
    (filter.priority, filter.handle) == (link::PRIORITY, link::HANDLE)
}
