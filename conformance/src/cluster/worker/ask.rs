//! Single questions, and whether the right answer came.

use std::{io, net::SocketAddr};

use nix::libc::EMSGSIZE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Ask, Told, bytes, icmp, keyed,
    socket::{LARGEST, PATIENCE, Room, in_time},
    sys,
};

/// Asks once.
pub(super) async fn ask(room: &Room, question: &Ask) -> io::Result<Told> {
    match *question {
        Ask::Tcp { to, key, seed, length } => tcp(room, to, key, &bytes(seed, length)).await,
        Ask::Udp { to, key, seed, length } => udp(room, to, key, &bytes(seed, length)).await,
        Ask::Ping { to, seed, length, hop_limit } => icmp::ping(room, to, &bytes(seed, length), hop_limit).await,
        Ask::Whole { to, key, seed, length } => whole(room, to, key, &bytes(seed, length)).await,
    }
}

/// Sends while it reads, whatever the size; a connection that stands still for the patience has failed.
async fn tcp(room: &Room, to: SocketAddr, key: u8, question: &[u8]) -> io::Result<Told> {
    let mut stream = room.connect(to).await?;
    let (mut from, mut into) = stream.split();
    let send = async {
        for part in question.chunks(16_384) {
            in_time(PATIENCE, into.write_all(part)).await?;
        }
        into.shutdown().await
    };
    let receive = async {
        let mut answer = Vec::with_capacity(question.len());
        while in_time(PATIENCE, from.read_buf(&mut answer)).await? > 0 {}
        Ok::<_, io::Error>(answer)
    };
    let ((), answer) = tokio::try_join!(send, receive)?;
    check(&answer, question, key)
}

async fn udp(room: &Room, to: SocketAddr, key: u8, question: &[u8]) -> io::Result<Told> {
    let socket = room.udp_to(to)?;
    socket.send(question).await?;
    answered(&socket, question, key).await
}

async fn answered(socket: &tokio::net::UdpSocket, question: &[u8], key: u8) -> io::Result<Told> {
    let mut answer = vec![0; LARGEST];
    let length = in_time(PATIENCE, socket.recv(&mut answer)).await?;
    check(&answer[..length], question, key)
}

fn check(answer: &[u8], question: &[u8], key: u8) -> io::Result<Told> {
    if answer == keyed(question, key) {
        return Ok(Told::Answered);
    }
    if answer.len() != question.len() {
        return Err(io::Error::other(format!("{} of {} bytes came back", answer.len(), question.len())));
    }
    let other = match (question.first(), answer.first()) {
        (Some(asked), Some(said)) if *answer == keyed(question, asked ^ said) => "somebody else answered",
        _ => "the bytes came back changed",
    };
    Err(io::Error::other(other))
}

/// With the "don't fragment" bit, or for IPv6 without fragments of the own: RFC 1191, RFC 8201.
async fn whole(room: &Room, to: SocketAddr, key: u8, question: &[u8]) -> io::Result<Told> {
    let socket = room.udp_to(to)?;
    sys::never_fragment(&socket, to.is_ipv4())?;
    let attempt = match socket.send(question).await {
        Ok(_) => answered(&socket, question, key).await,
        Err(error) => Err(error),
    };
    match attempt {
        // Known already, or told by a router just now.
        Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
            Ok(Told::TooBig { mtu: sys::path_mtu(&socket, to.is_ipv4())? })
        }
        other => other,
    }
}
