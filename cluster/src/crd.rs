//! The kinds of `cilium.io` and `kinesin.io` that are in use, and how their definitions get into a cluster.

mod claims;
mod condition;
mod definitions;
mod endpoint;
mod install;
mod node;
mod pool;

pub use claims::{ClaimsSpec, NodeClaims, PodCIDRClaims, ReleasedBlock};
pub use condition::Condition as StatusCondition;
pub use definitions::{SCHEMA_VERSION, SCHEMA_VERSION_LABEL, crds};
pub use endpoint::{
    AddressPair, CiliumEndpoint, DirectionPolicy, EndpointEncryption, EndpointIdentity, EndpointNetworking,
    EndpointPolicy, EndpointSpec, EndpointStatus, ExternalIdentifiers, IdentityRule, NamedPort,
};
pub use install::{Installed, install_crds};
pub use node::{
    CILIUM_INTERNAL_IP, CiliumNode, EncryptionSpec, FamilyAddresses, INTERNAL_IP, IpamSpec, IpamStatus, NodeAddress,
    NodeSpec, NodeStatus, OperatorStatus, PodCidrStatus, PoolAllocation, PoolEntry, PoolNeeds, PoolRequest, Pools,
};
pub use pool::{CiliumPodIPPool, Ipv4Ranges, Ipv6Ranges, PoolSpec, PoolStatus};
