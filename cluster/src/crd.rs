//! The kinds of `cilium.io` that are in use, and how their definitions get into a cluster.

mod definitions;
mod endpoint;
mod install;
mod node;

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
