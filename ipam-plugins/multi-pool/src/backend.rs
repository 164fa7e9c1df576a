//! The rules of this mode: how much a node asks of each pool, and what it gives back.

use std::{borrow::Cow, sync::Arc, time::Duration};

use kinesin_core::{
    ipam::{AllocateRequest, Ipam, IpamError},
    registry::{BuildContext, BuildError},
    values::{Families, Family},
};
use kinesin_ipam_allocator::{Asking, Keep, Mode, Rules, Usage};

use crate::{
    NAME,
    config::{Config, Settings},
};

/// How many blocks of each pool that the operator hands out a node has.
#[derive(Debug)]
pub struct MultiPool {
    settings: Settings,
    families: Families,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(new(settings, context.families)))
}

pub(crate) fn new(settings: Settings, families: Families) -> Asking<MultiPool> {
    let mode = Mode {
        name: NAME,
        default_pool: Cow::Owned(settings.default_pool.clone()),
        expected_from: "the operator, which cuts it out of a CiliumPodIPPool",
    };
    Asking::new(mode, MultiPool { settings, families })
}

impl Rules for MultiPool {
    fn always(&self) -> Vec<(&str, Family)> {
        let pools = self.settings.pre_allocation.keys();
        pools.flat_map(|pool| self.families.iter().map(|family| (pool.as_str(), family))).collect()
    }

    fn wanted(&self, usage: &Usage) -> u64 {
        self.settings.wanted(&usage.pool, usage.in_use + usage.waiting)
    }

    fn keep(&self, usage: &Usage) -> Keep {
        Keep { addresses: self.wanted(usage), blocks: 0 }
    }

    fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// Whether such a pool exists is for the operator to say; here it is one of which the node has nothing.
    fn refusal(&self, request: &AllocateRequest, error: IpamError) -> IpamError {
        let pool = || request.pool.as_ref().unwrap_or(&self.settings.default_pool).clone();
        match error {
            IpamError::NotReady { family, .. } => IpamError::PoolNotReady { pool: pool(), family },
            IpamError::UnknownPool { .. } => {
                let family = request.families.iter().next().unwrap_or(Family::V4);
                IpamError::PoolNotReady { pool: pool(), family }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
