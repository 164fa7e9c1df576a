//! The rules of this mode: when a node asks for a further block, and when it gives one back.

use std::{borrow::Cow, sync::Arc, time::Duration};

use kinesin_core::{
    ipam::Ipam,
    registry::{BuildContext, BuildError},
    values::{Families, Family},
};
use kinesin_ipam_allocator::{Asking, Keep, Mode, Rules, Usage};

use crate::{
    NAME,
    config::{Config, Settings},
};

/// The one pool of this mode.
const POOL: &str = "default";

const MODE: Mode = Mode {
    name: NAME,
    default_pool: Cow::Borrowed(POOL),
    expected_from: "the operator, which cuts it out of cluster-pool-ipv4-cidr or cluster-pool-ipv6-cidr and writes it to \
                    the CiliumNode's spec.ipam.podCIDRs; look at its status.ipam.operator-status.error",
};

const BOUNDED: &str = "a node keeps to the blocks that it has because backendConfig.cluster_pool.grow is false: set it to \
                       true, or delete pods on this node";

/// How many of the blocks that the operator hands out a node has.
#[derive(Debug)]
pub struct ClusterPool {
    settings: Settings,
    families: Families,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(new(settings, context.families)))
}

pub(crate) fn new(settings: Settings, families: Families) -> Asking<ClusterPool> {
    Asking::new(MODE, ClusterPool { settings, families })
}

impl ClusterPool {
    /// Free addresses below which the node asks. A /29 with half of its six addresses leased is not low.
    fn watermark(&self, usage: &Usage) -> u64 {
        self.settings.low_watermark.map_or_else(|| (usage.largest / 8).clamp(2, 64), u64::from)
    }
}

impl Rules for ClusterPool {
    fn always(&self) -> Vec<(&str, Family)> {
        self.families.iter().map(|family| (POOL, family)).collect()
    }

    fn wanted(&self, usage: &Usage) -> u64 {
        let needed = usage.in_use + usage.waiting;
        if self.settings.grow { needed + self.watermark(usage) } else { needed }
    }

    fn keep(&self, usage: &Usage) -> Keep {
        if !self.settings.grow {
            return Keep { addresses: u64::MAX / 2, blocks: usize::MAX };
        }
        // Twice the watermark must stay free, or the next pod would ask for the block again.
        Keep { addresses: self.wanted(usage) + self.watermark(usage), blocks: 1 }
    }

    fn linger(&self) -> Duration {
        self.settings.linger
    }

    fn bounded(&self) -> Option<&'static str> {
        (!self.settings.grow).then_some(BOUNDED)
    }
}

#[cfg(test)]
mod tests;
