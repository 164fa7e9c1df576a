//! HTTP servers: nginx's page, whoami's text, the host name.

use std::fmt::Write as _;
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::jiff::Timestamp;
use nix::ifaddrs::getifaddrs;
use tokio::net::TcpListener;

/// The page of a fresh nginx.
const WELCOME: &str = "<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
<style>
html { color-scheme: light dark; }
body { width: 35em; margin: 0 auto;
font-family: Tahoma, Verdana, Arial, sans-serif; }
</style>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the nginx web server is successfully installed and
working. Further configuration is required.</p>

<p>For online documentation and support please refer to
<a href=\"http://nginx.org/\">nginx.org</a>.<br/>
Commercial support is available at
<a href=\"http://nginx.com/\">nginx.com</a>.</p>

<p><em>Thank you for using nginx.</em></p>
</body>
</html>
";
const MISSING: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/1.27.3</center>\r\n</body>\r\n</html>\r\n";
const SERVER: HeaderValue = HeaderValue::from_static("nginx/1.27.3");

type Peer = ConnectInfo<SocketAddr>;

async fn serve(port: u16, router: Router) -> io::Result<()> {
    let listener = TcpListener::bind(&super::everywhere(port)[..]).await?;
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

pub(super) async fn nginx() -> io::Result<()> {
    serve(80, Router::new().fallback(page)).await
}

async fn page(ConnectInfo(peer): Peer, request: Request) -> Response {
    // Pages may be put where nginx looks for them, by a volume for example.
    let path = request.uri().path().trim_start_matches('/');
    let is_safe = !path.split('/').any(|part| part == "..");
    let file = std::path::Path::new("/usr/share/nginx/html").join(if path.is_empty() { "index.html" } else { path });
    let found = if is_safe { std::fs::read(file).ok() } else { None };
    let (status, body) = match found {
        Some(body) => (StatusCode::OK, body),
        None if path.is_empty() || path == "index.html" => (StatusCode::OK, WELCOME.into()),
        None => (StatusCode::NOT_FOUND, MISSING.into()),
    };
    let head = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("-");
    // A client without a terminal reads the log line by line; a closed pipe is no reason to stop serving.
    let _ = writeln!(
        io::stdout().lock(),
        "{} - - [{}] \"{} {} {:?}\" {} {} \"{}\" \"{}\" \"{}\"",
        peer.ip().to_canonical(),
        Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000"),
        request.method(),
        request.uri(),
        request.version(),
        status.as_u16(),
        body.len(),
        head("referer"),
        head("user-agent"),
        head("x-forwarded-for")
    );
    let mut response = (status, [(header::CONTENT_TYPE, "text/html")], body).into_response();
    response.headers_mut().insert(header::SERVER, SERVER);
    response
}

pub(super) async fn whoami(arguments: &[String]) -> io::Result<()> {
    let port = parse_port(arguments, std::env::var("WHOAMI_PORT_NUMBER").ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the port must be a number up to 65535"))?;
    serve(port, Router::new().route("/health", axum::routing::get(|| async { "" })).fallback(tell)).await
}

/// `--port N`, `--port=N`, the same with one dash, or the variable; 80 otherwise.
fn parse_port(arguments: &[String], variable: Option<String>) -> Option<u16> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let name = argument.trim_start_matches('-');
        if name == "port" {
            return arguments.next()?.parse().ok();
        }
        if let Some(value) = name.strip_prefix("port=") {
            return value.parse().ok();
        }
    }
    variable.map_or(Some(80), |value| value.parse().ok())
}

async fn tell(ConnectInfo(peer): Peer, request: Request) -> String {
    let mut text = format!("Hostname: {}\n", own_name());
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            let _ = writeln!(text, "IP: {}", v4.ip());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let _ = writeln!(text, "IP: {}", v6.ip());
        }
    }
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let _ = write!(text, "RemoteAddr: {peer}\n{} {} {:?}\n", request.method(), request.uri(), request.version());
    let header = |name: &str, value: &HeaderValue| {
        let name: Vec<String> = name
            .split('-')
            .map(|part| {
                part.chars().enumerate().map(|(i, c)| if i == 0 { c.to_ascii_uppercase() } else { c }).collect()
            })
            .collect();
        format!("{}: {}\n", name.join("-"), String::from_utf8_lossy(value.as_bytes()))
    };
    if let Some(host) = request.headers().get(header::HOST) {
        text.push_str(&header("host", host));
    }
    let mut others: Vec<String> =
        request.headers().iter().filter(|(n, _)| *n != header::HOST).map(|(n, v)| header(n.as_str(), v)).collect();
    others.sort();
    text.extend(others);
    text.push('\n');
    text
}

pub(super) async fn host_name() -> io::Result<()> {
    serve(80, Router::new().fallback(|| async { format!("{}\n", own_name()) })).await
}

fn own_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_whoami_comes_from_flag_or_variable() {
        let port = |arguments: &[&str], variable: Option<&str>| {
            parse_port(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), variable.map(str::to_owned))
        };
        assert_eq!(port(&[], None), Some(80));
        assert_eq!(port(&["--name", "x", "--port", "81"], None), Some(81));
        assert_eq!(port(&["-port=82"], Some("83")), Some(82));
        assert_eq!(port(&[], Some("83")), Some(83));
        assert_eq!(port(&["--port"], None), None);
        assert_eq!(port(&[], Some("x")), None);
    }
}
