//! BPF filters on clsact qdiscs: which program runs where.

use futures::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::TrafficFilterGetRequest;

use crate::{Netlink, NetlinkError};

/// A filter that runs a BPF program, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfFilter {
    /// Its priority; the lowest runs first.
    pub priority: u16,
    /// Its handle, which tells it from others of the same priority.
    pub handle: u32,
    /// Number of its program in the kernel.
    pub program: u32,
}

impl Netlink {
    /// The BPF filters on what a device receives; none where it has no clsact qdisc or does not exist.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn ingress_filters(&self, index: u32) -> Result<Vec<BpfFilter>, NetlinkError> {
        self.filters(index, TrafficFilterGetRequest::ingress).await
    }

    /// The BPF filters on what a device sends; none where it has no clsact qdisc or does not exist.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn egress_filters(&self, index: u32) -> Result<Vec<BpfFilter>, NetlinkError> {
        self.filters(index, TrafficFilterGetRequest::egress).await
    }

    async fn filters(
        &self,
        index: u32,
        direction: fn(TrafficFilterGetRequest) -> TrafficFilterGetRequest,
    ) -> Result<Vec<BpfFilter>, NetlinkError> {
        let request = direction(self.handle.traffic_filter(index.cast_signed()).get());
        let failed = |error| NetlinkError::from_request(format!("list the filters of device {index}"), error);
        match request.execute().try_collect::<Vec<_>>().await.map_err(failed) {
            Ok(messages) => Ok(messages.iter().filter_map(parse_filter).collect()),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// A dump also has a message per classifier, which names no program.
fn parse_filter(message: &TcMessage) -> Option<BpfFilter> {
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let program = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => Some(*program),
        _ => None,
    })?;
    // Lossless: the priority in the upper half, the protocol in the lower (`tcf_fill_node`, Linux `net/sched/cls_api.c`).
    let priority = (message.header.info >> 16) as u16;
    Some(BpfFilter { priority, handle: message.header.handle.into(), program })
}
