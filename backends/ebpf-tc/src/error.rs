//! What went wrong below, in the words of the chassis.

use kinesin_core::chassis::ChassisError;
use kinesin_loader::LoaderError;
use kinesin_netlink::{NetlinkError, SysctlError};

pub(crate) fn loader_error(error: LoaderError) -> ChassisError {
    match error {
        LoaderError::OtherLayout { path, found, own } => ChassisError::Layout {
            path: path.display().to_string(),
            found,
            own,
            remedy: "drain the node and remove that directory, or go on with the version that wrote it".to_owned(),
        },
        LoaderError::Locked { pid, .. } => ChassisError::Busy { pid },
        other => kernel_error(other.to_string(), other),
    }
}

pub(crate) fn netlink_error(error: NetlinkError) -> ChassisError {
    kernel_error(error.to_string(), error)
}

pub(crate) fn sysctl_error(error: SysctlError) -> ChassisError {
    kernel_error(error.to_string(), error)
}

fn kernel_error(text: String, source: impl std::error::Error + Send + Sync + 'static) -> ChassisError {
    // `ChassisError` starts its message with "cannot"; the errors below do too.
    let action = text.strip_prefix("cannot ").map(str::to_owned).unwrap_or(format!("set up the datapath: {text}"));
    ChassisError::Kernel { action, source: Box::new(source) }
}
