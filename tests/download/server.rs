//! An HTTP server on 127.0.0.1 whose responses each test writes itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The header lines of a request, in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request(pub(crate) Vec<String>);

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.0.iter().find_map(|line| line.strip_prefix(&prefix))
    }

    /// `N` of `Range: bytes=N-`.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range").map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap())
    }
}

type Handler = Box<dyn FnMut(usize, &Request, &mut TcpStream) + Send>;

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `handle` receives the index of the request, the request and the connection, which is closed afterwards.
    pub(crate) fn start(handle: impl FnMut(usize, &Request, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (Arc::clone(&requests), Arc::clone(&done));
        let mut handle: Handler = Box::new(handle);
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut lines = Vec::new();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { break };
                    if line.is_empty() {
                        break;
                    }
                    lines.push(line.to_lowercase());
                }
                let request = Request(lines);
                seen.lock().unwrap().push(request.clone());
                handle(number, &request, &mut stream);
            }
        });
        Self { address, requests, done, thread: Some(thread) }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let thread = self.thread.take().unwrap().join();
        assert!(thread.is_ok() || std::thread::panicking());
    }
}

/// Writes a response; it is not an error of the server if the client closes the connection early.
pub(crate) fn answer(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"\r\n"));
    let _ = stream.write_all(body);
}

pub(crate) fn length_of(body: &[u8]) -> String {
    format!("Content-Length: {}", body.len())
}

pub(crate) fn whole(stream: &mut TcpStream, body: &[u8]) {
    answer(stream, "200 OK", &[length_of(body), "ETag: \"v1\"".into()], body);
}

/// Announces the length of all of `body` but sends only `keep` bytes.
pub(crate) fn broken(stream: &mut TcpStream, body: &[u8], keep: usize) {
    answer(stream, "200 OK", &[length_of(body), "ETag: \"v1\"".into()], &body[..keep]);
}

pub(crate) fn partial(stream: &mut TcpStream, body: &[u8], from: usize) {
    let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
    let headers = [length_of(&body[from..]), range, "ETag: \"v1\"".into()];
    answer(stream, "206 Partial Content", &headers, &body[from..]);
}
