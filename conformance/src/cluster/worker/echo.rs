//! Answering: what comes goes back under the own key.

use std::{io, net::IpAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::{
    Ends, keyed,
    socket::{LARGEST, Room},
};

/// Listens at one address until `tasks` is dropped; the ports are the kernel's choice.
pub(super) fn listen(room: &Room, ip: IpAddr, key: u8, tasks: &mut JoinSet<()>) -> io::Result<Ends> {
    let (tcp, udp) = room.listen(ip)?;
    let ends = Ends { tcp: tcp.local_addr()?, udp: udp.local_addr()? };
    tasks.spawn(serve_tcp(tcp, key));
    tasks.spawn(serve_udp(udp, key));
    Ok(ends)
}

async fn serve_udp(socket: UdpSocket, key: u8) {
    let mut buffer = vec![0; LARGEST];
    loop {
        // Errors are ICMP errors of earlier answers; they do not end the service.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&keyed(&buffer[..length], key), from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, key: u8) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(serve_stream(stream, key)); }
                // Out of file descriptors, for example; the client has its own failure to tell.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_stream(mut stream: TcpStream, key: u8) {
    // The client has its own failure to tell, so all of them end alike.
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 16_384];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&keyed(&buffer[..length], key)).await.is_err() {
            return;
        }
    }
}
