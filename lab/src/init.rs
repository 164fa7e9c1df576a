//! The holders: process 1 of a node or of the segment. They keep the namespaces and outlive everything that runs there.

use std::{path::Path, process::Command, thread, time::Duration};

use kinesin_core::causes::with_causes;
use nix::{
    errno::Errno,
    sys::wait::waitpid,
    unistd::{Pid, pause},
};

use crate::{
    layout::read_json,
    plan::{NodePlan, Plan, Role},
    rootfs::{self, BIN},
    start,
};

/// Before the kubelet is started again; an error that stays must not fill the log.
const RESTART: Duration = Duration::from_millis(500);

/// Keeps the segment's network namespace.
pub(crate) fn segment() -> Result<(), String> {
    start::ready("ready")?;
    loop {
        pause();
    }
}

/// Makes the node, then runs its kubelet for good and collects what ends.
pub(crate) fn node(plan: &NodePlan, plan_file: &Path) -> Result<(), String> {
    start::log_to_stderr();
    // The plan is out of sight once the root has changed.
    let copy = plan.node_dir.join("plan.json");
    std::fs::copy(plan_file, &copy).map_err(|error| format!("cannot copy the plan: {error}"))?;
    rootfs::assemble(plan)?;
    start::ready("ready")?;
    loop {
        match kubelet_command(&copy).spawn() {
            Ok(kubelet) => {
                collect_until(kubelet.id());
                tracing::warn!("the kubelet has ended and is started again");
            }
            Err(error) => tracing::error!(%error, "the kubelet cannot be started"),
        }
        thread::sleep(RESTART);
    }
}

fn kubelet_command(plan: &Path) -> Command {
    let mut command = start::hidden(format!("{BIN}/kinesin"), "kubelet");
    command.arg(plan).env("PATH", format!("{BIN}:{}", start::PATH)).env("HOME", "/root");
    if let Ok(log) = std::fs::File::options().create(true).append(true).open(plan.with_file_name("kubelet.log")) {
        command.stderr(log);
    }
    command
}

/// Collects processes until this one was among them.
fn collect_until(pid: u32) {
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(status) if status.pid().is_some_and(|ended| i64::from(ended.as_raw()) == i64::from(pid)) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            // No child at all: the kubelet cannot be there either.
            Err(_) => return,
        }
    }
}

/// The kubelet stand-in, inside its node.
pub(crate) fn kubelet(plan: &Path) -> Result<(), String> {
    start::log_to_stderr();
    let found: Option<Plan> = read_json(plan).map_err(|error| with_causes(&error))?;
    let Some(Plan { role: Role::Node(node), .. }) = found else {
        return Err(format!("{} is no plan of a node", plan.display()));
    };
    crate::kubelet::run(&node)
}
