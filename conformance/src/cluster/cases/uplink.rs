//! A node whose uplink changes under the agent: down and up, another name, further addresses, gone while the agent starts.

use std::time::Instant;

use kinesin_agent_api::types::StatusResponse;

use super::addresses::reach_each_other;
use crate::{
    cluster::{
        context::Context,
        place::Place,
        verdict::{Judged, Stop},
    },
    leaks::Site,
    target::{Inside, NodeInfo},
};

/// What the device is called in between.
const OTHER_NAME: &str = "kin0";
/// Addresses that come before the node's own on the device, so that the kernel would choose them. Nobody else has them.
const FURTHER: &str = "192.168.10.21/24 fd00:192:168:10::21/64";

/// Prints the name of the device that has the address `$1`, its addresses, and the default gateways.
const LOOK: &str = r#"
name=$(ip -o address show to "$1" | awk '{print $2; exit}')
echo "$name"
ip -o address show dev "$name" scope global | awk '{print $4}' | tr '\n' ' '
echo
ip route show default | awk '{print $3; exit}'
ip -6 route show default | awk '{print $3; exit}'
"#;
/// Takes the device `$1` down, with all that it had, and calls it `$2`.
const DOWN: &str = r#"
ip link set "$1" down
ip address flush dev "$1"
[ "$1" = "$2" ] || ip link set "$1" name "$2"
"#;
/// Brings the device `$1` up with the addresses `$2` and default routes by `$3`, as whoever manages a machine's network does.
const UP: &str = r#"
ip link set "$1" up
for address in $2; do
    case $address in
    *:*) ip address replace "$address" dev "$1" nodad ;;
    *) ip address replace "$address" dev "$1" ;;
    esac
done
for gateway in $3; do
    case $gateway in
    *:*) ip -6 route replace default via "$gateway" dev "$1" ;;
    *) ip route replace default via "$gateway" dev "$1" ;;
    esac
done
"#;

/// The device by which a node is reached. As it was when this is gone, also when the case fails.
struct Uplink<'a> {
    inside: &'a dyn Inside,
    node: &'a NodeInfo,
    /// As it was found.
    first: String,
    name: String,
    addresses: String,
    gateways: String,
    is_changed: bool,
}

impl<'a> Uplink<'a> {
    fn of(inside: &'a dyn Inside, node: &'a NodeInfo) -> Result<Self, Stop> {
        let address = node.ips.first().map(ToString::to_string).unwrap_or_default();
        let told = inside.shell(&node.name, LOOK, &[&address])?;
        let mut lines = told.lines().map(str::trim);
        let mut next = || lines.next().unwrap_or_default().to_owned();
        let (name, addresses) = (next(), next());
        let gateways = format!("{} {}", next(), next());
        if name.is_empty() || addresses.is_empty() {
            return Err(Stop::broken(format!("no device of {} has {address}: {told:?}", node.name)));
        }
        Ok(Self { inside, node, first: name.clone(), name, addresses, gateways, is_changed: false })
    }

    fn down(&mut self, name: &str) -> Result<(), Stop> {
        self.is_changed = true;
        self.inside.shell(&self.node.name, DOWN, &[&self.name, name])?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    fn up(&mut self, further: &str) -> Result<(), Stop> {
        let addresses = format!("{further} {}", self.addresses);
        self.inside.shell(&self.node.name, UP, &[&self.name, &addresses, &self.gateways]).map(drop)
    }

    fn restore(&mut self) -> Result<(), Stop> {
        let first = self.first.clone();
        self.down(&first)?;
        self.up("")?;
        self.is_changed = false;
        Ok(())
    }
}

impl Drop for Uplink<'_> {
    fn drop(&mut self) {
        if self.is_changed {
            // The verdict stands; a node that is cut off is seen by whoever comes next.
            let _ = self.restore();
        }
    }
}

/// Whatever becomes of the uplink is followed without a restart, what cannot work is told, and when the uplink is back
/// everybody reaches everybody. Among several addresses, tunnels travel by the node's own.
pub(in crate::cluster) fn changes(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let inside = context.target.inside().ok_or_else(|| Stop::broken("this target cannot be looked into"))?;
    let pods = context.start_on(&two, "pod", 2)?;
    reach_each_other(context, &pods)?;
    let node = &two[1];
    let site = inside.site(&node.name)?;
    let mut uplink = Uplink::of(inside, node)?;
    let first = uplink.first.clone();
    let mut took = Vec::new();

    uplink.down(&first)?;
    context.until(&format!("the agent of {} to say that it has no uplink", node.name), || {
        let status: StatusResponse = match site.ask("/healthz") {
            Ok(status) => status,
            Err(reason) => return Ok(Err(reason)),
        };
        let told = status.controllers.iter().find(|found| found.message.contains("uplink")).map(|found| &found.message);
        Ok(told.map(drop).ok_or_else(|| format!("{:?}", status.controllers)))
    })?;
    uplink.up("")?;
    took.push(format!("down and up {}", healed(context, &site, &first, &pods)?));

    uplink.down(OTHER_NAME)?;
    uplink.up(FURTHER)?;
    took.push(format!("renamed, with further addresses {}", healed(context, &site, OTHER_NAME, &pods)?));

    uplink.down(OTHER_NAME)?;
    inside.kill_agent(&node.name)?;
    uplink.up("")?;
    took.push(format!("back while an agent starts {}", healed(context, &site, OTHER_NAME, &pods)?));

    uplink.restore()?;
    took.push(format!("as it was {}", healed(context, &site, &first, &pods)?));
    inside.settle()?;
    Ok(format!("all reached again: {}", took.join(", ")))
}

/// Until the agent sends by this device alone and everybody reaches everybody; and then nobody is lost any more.
fn healed(context: &Context<'_>, site: &Site, device: &str, pods: &[Place]) -> Judged {
    let begun = Instant::now();
    context.until(&format!("the agent to send by {device}"), || {
        Ok(match site.ask::<StatusResponse>("/healthz") {
            Ok(status) if status.routing.devices == [device] => Ok(()),
            Ok(status) => Err(format!("{:?}, {:?}", status.routing.devices, status.controllers)),
            Err(reason) => Err(reason),
        })
    })?;
    context.until("everybody to reach everybody", || {
        Ok(reach_each_other(context, pods).map(drop).map_err(|stop| stop.to_string()))
    })?;
    let took = begun.elapsed();
    reach_each_other(context, pods)?;
    Ok(format!("after {:.1} s", took.as_secs_f64()))
}
