//! A backend that knows ways, made one that keeps routes.

use std::{fmt, path::Path as FilePath};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    routing::{Path, Peer, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_netlink::MirrorSpec;

use crate::{keeper::Keeper, kernel::Kernel, outcome::Outcome};

/// Knows the way to other nodes' pods; whose routes are whose, and when they change, is the same for every backend.
pub trait Pathfinder: fmt::Debug + Send + Sync + 'static {
    /// What carries the packets.
    fn carrier(&self) -> Carrier;

    /// Bytes that the carrier adds to a packet on an underlay of `family`.
    fn overhead_bytes(&self, underlay: Family) -> u16;

    /// Finds the way to each pod CIDR of `pods`, which come with the name of their node: by nothing but what it is given,
    /// since it is asked again only when that has changed.
    ///
    /// # Errors
    /// What concerns all peers; one peer's trouble belongs to the outcome.
    fn find(
        &self,
        kernel: &Kernel,
        desired: &RoutingDesired,
        pods: &[(IpNet, &str, &Peer)],
        outcome: &mut Outcome,
    ) -> Result<(), RoutingError>;
}

/// The routing backend of a [`Pathfinder`].
#[derive(Debug)]
pub struct RouteKeeping<P> {
    finder: P,
    keeper: Keeper,
}

impl<P: Pathfinder> RouteKeeping<P> {
    /// The backend of this registry name, whose list of routes is in `state_dir`.
    #[must_use]
    pub fn new(finder: P, state_dir: &FilePath, backend: &str) -> Self {
        Self::with(finder, state_dir, backend, MirrorSpec::default())
    }

    /// As [`Self::new`], with another way of following the kernel.
    #[must_use]
    pub fn with(finder: P, state_dir: &FilePath, backend: &str, spec: MirrorSpec) -> Self {
        Self { finder, keeper: Keeper::new(state_dir, backend, spec) }
    }

    /// How often all routes of the kernel were read since the first use, or since `retire`.
    pub async fn readings(&self) -> u64 {
        self.keeper.readings().await
    }
}

#[async_trait]
impl<P: Pathfinder> Routing for RouteKeeping<P> {
    fn carrier(&self) -> Carrier {
        self.finder.carrier()
    }

    fn overhead_bytes(&self, underlay: Family) -> u16 {
        self.finder.overhead_bytes(underlay)
    }

    async fn plan(&self, desired: &RoutingDesired) -> Result<Option<Vec<Path>>, RoutingError> {
        self.keeper.plan(desired, &self.finder).await.map(Some)
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        self.keeper.apply(desired, &self.finder).await
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        self.keeper.retire().await
    }
}
