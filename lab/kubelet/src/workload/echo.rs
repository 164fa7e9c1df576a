//! Sends back what it gets, over TCP and UDP.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};

/// The port of the echo service. Source: RFC 862.
const PORT: u16 = 7;

pub(super) async fn serve() -> io::Result<()> {
    let tcp = TcpListener::bind(&super::everywhere(PORT)[..]).await?;
    let udp = UdpSocket::bind(&super::everywhere(PORT)[..]).await?;
    tokio::try_join!(over_tcp(tcp), over_udp(Arc::new(udp)), super::http::host_name()).map(drop)
}

async fn over_tcp(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    // A peer that breaks off has its own reasons.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
            // Out of descriptors, most likely.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn over_udp(socket: Arc<UdpSocket>) -> io::Result<()> {
    let mut datagram = vec![0; 1 << 16];
    loop {
        // Errors are those of earlier answers, reported late; the next datagram is another matter.
        let Ok((count, from)) = socket.recv_from(&mut datagram).await else { continue };
        let _ = socket.send_to(&datagram[..count], from).await;
    }
}
