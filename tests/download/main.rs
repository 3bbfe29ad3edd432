//! Downloads from an in-process server whose faults each test defines.

// Helpers panic to report a failure; clippy.toml exempts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fairtat::data::DataError;
use fairtat::data::download::{
    FetchOptions, Fetched, Origin, Phase, Progress, Status, Verdict, digests, fetch, status, verify,
};
use fairtat::data::publishers::{Checksum, Packing, PublishedFile, Publisher};
use server::{Request, Server, answer, broken, length_of, partial, whole};

// ---------------------------------------------------------------- fixtures

/// Incompressible bytes without repetition.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn published(server: &Server, name: &str, body: &[u8], packing: Packing) -> Publisher {
    Publisher {
        name: "tiny".into(),
        title: "a test".into(),
        page: "http://page.invalid/tiny".into(),
        licence: "none".into(),
        files: vec![PublishedFile {
            name: name.into(),
            urls: vec![server.url(name)],
            bytes: Some(body.len() as u64),
            at_most: body.len() as u64,
            size_source: "length in the test".into(),
            checksum: Some(Checksum::Md5(digests(body).unwrap().md5)),
            checksum_source: "printed in the test".into(),
            packing,
        }],
    }
}

fn options() -> FetchOptions {
    FetchOptions {
        connect_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_millis(500),
        attempts: 3,
        backoff: Duration::from_millis(5),
        keep_archives: true,
        proxy_from_environment: false,
    }
}

fn run(publisher: &Publisher, root: &Path) -> Result<Fetched, DataError> {
    fetch(publisher, root, &options(), &AtomicBool::new(false), &mut |_| {})
}

fn check(publisher: &Publisher, root: &Path) -> Result<fairtat::data::download::Report, DataError> {
    verify(publisher, root, &AtomicBool::new(false), &mut |_| {})
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    names
}

/// A server, a data set that consists of the file `x.gz` with the contents `body`, and a root directory.
struct Case {
    server: Server,
    publisher: Publisher,
    root: tempfile::TempDir,
    body: Vec<u8>,
}

impl Case {
    /// The handler also gets the file's bytes.
    fn new(length: usize, mut handle: impl FnMut(usize, &Request, &mut TcpStream, &[u8]) + Send + 'static) -> Self {
        let body = noise(length);
        let copy = body.clone();
        let server = Server::start(move |number, request, stream| handle(number, request, stream, &copy));
        let publisher = published(&server, "x.gz", &body, Packing::None);
        Self { server, publisher, root: tempfile::tempdir().unwrap(), body }
    }

    /// The same set without an exact length, as if the publisher only stated a rounded one.
    fn without_length(mut self) -> Self {
        self.publisher.files[0].bytes = None;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("tiny").join(name)
    }

    fn run(&self) -> Result<Fetched, DataError> {
        run(&self.publisher, self.root.path())
    }

    /// Asserts that the file is complete, and that only its record is next to it.
    #[track_caller]
    fn assert_whole(&self) {
        assert_eq!(std::fs::read(self.path("x.gz")).unwrap(), self.body);
        assert_eq!(names(&self.path("")), ["x.gz", "x.gz.sha256"]);
        let verified = Status::Verified { bytes: self.body.len() as u64 };
        assert_eq!(status(&self.publisher, self.root.path()).unwrap(), verified);
    }

    /// Asserts that the download fails with a message that contains all `parts`, and leaves no file under its final
    /// name.
    #[track_caller]
    fn assert_refused(&self, parts: &[&str]) -> DataError {
        let error = self.run().unwrap_err();
        let message = error.to_string();
        let path = self.path("x.gz");
        let advice = ["fairtat data check tiny", "with a browser", path.to_str().unwrap()];
        for part in parts.iter().chain(&advice) {
            assert!(message.contains(part), "no '{part}' in: {message}");
        }
        assert!(!path.exists());
        error
    }
}

// ---------------------------------------------------------------- downloads

#[test]
fn a_whole_file_is_verified_recorded_and_not_asked_for_again() {
    let case = Case::new(300_000, |_, _, stream, body| whole(stream, body));
    assert_eq!(status(&case.publisher, case.root.path()).unwrap(), Status::Absent);
    let mut seen = Vec::new();
    let mut note = |progress: Progress<'_>| {
        assert_eq!(progress.file, "x.gz");
        seen.push((progress.phase, progress.done, progress.total));
    };
    let fetched = fetch(&case.publisher, case.root.path(), &options(), &AtomicBool::new(false), &mut note).unwrap();
    assert_eq!(fetched.files[0].origin, Origin::Downloaded(case.server.url("x.gz")));
    assert_eq!(fetched.data, case.path(""));
    case.assert_whole();
    for phase in [Phase::Downloading, Phase::Verifying] {
        assert!(seen.contains(&(phase, 0, Some(300_000))) && seen.contains(&(phase, 300_000, Some(300_000))));
    }

    let found = digests(case.body.as_slice()).unwrap();
    let record = std::fs::read_to_string(case.path("x.gz.sha256")).unwrap();
    let expected =
        format!("# Verified against MD5 {}, printed in the test\n# 300000 bytes\n{}  x.gz\n", found.md5, found.sha256);
    assert_eq!(record, expected);

    assert_eq!(case.run().unwrap().files[0].origin, Origin::FoundVerified);
    assert_eq!(case.server.requests().len(), 1);
    assert_eq!(case.server.requests()[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let case = Case::new(300_000, |number, request, stream, body| match number {
        0 => broken(stream, body, 100_000),
        _ => partial(stream, body, request.from().unwrap()),
    });
    case.run().unwrap();
    case.assert_whole();
    let requests = case.server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("range"), Some("bytes=100000-"));
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn progress_resets_the_count_of_failures() {
    // Nine interruptions with three attempts: each transfer makes progress.
    let case = Case::new(100_000, |number, request, stream, body| {
        let from = request.from().unwrap_or(0);
        if number == 0 {
            broken(stream, body, 10_000);
        } else {
            let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
            answer(stream, "206 Partial Content", &[length_of(&body[from..]), range], &body[from..from + 10_000]);
        }
    });
    case.run().unwrap();
    case.assert_whole();
    assert_eq!(case.server.requests().len(), 10);
}

#[test]
fn a_later_run_resumes_an_earlier_one() {
    let case = Case::new(200_000, |number, request, stream, body| match number {
        0..=2 => broken(stream, body, 50_000),
        _ => partial(stream, body, request.from().unwrap()),
    });
    case.assert_refused(&["50000 of 200000 bytes", "3 attempts"]);
    assert_eq!(
        status(&case.publisher, case.root.path()).unwrap(),
        Status::Partial { bytes: 50_000, total: Some(200_000) }
    );
    case.run().unwrap();
    case.assert_whole();
    assert_eq!(case.server.requests()[3].from(), Some(50_000));
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole() {
    let case = Case::new(200_000, |number, _, stream, body| match number {
        0 => broken(stream, body, 50_000),
        _ => whole(stream, body),
    });
    case.run().unwrap();
    case.assert_whole();
    assert_eq!(case.server.requests()[1].from(), Some(50_000));
}

#[test]
fn a_wrong_content_range_is_never_used() {
    for wrong in ["bytes 0-199999/200000", "bytes 50001-199999/200000", "bytes 50000-199999/200001", "nonsense"] {
        let case = Case::new(200_000, move |number, request, stream, body| match (number, request.from()) {
            (0, _) => broken(stream, body, 50_000),
            (_, Some(from)) => {
                let headers = [length_of(&body[from..]), format!("Content-Range: {wrong}")];
                answer(stream, "206 Partial Content", &headers, &vec![0; body.len() - from]);
            }
            (_, None) => whole(stream, body),
        });
        case.run().unwrap();
        case.assert_whole();
        assert_eq!(case.server.requests().len(), 3, "{wrong}");
    }
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_from_its_start() {
    // One server honours If-Range and sends the whole new file; the other continues with the bytes of the new file.
    for obeys in [true, false] {
        let case = Case::new(200_000, move |number, request, stream, body| match (number, request.from()) {
            (0, _) => {
                let old = vec![1; body.len()];
                answer(stream, "200 OK", &[length_of(&old), "ETag: \"v0\"".into()], &old[..50_000]);
            }
            (_, Some(from)) if !obeys => partial(stream, body, from),
            _ => whole(stream, body),
        });
        case.run().unwrap();
        case.assert_whole();
        assert_eq!(case.server.requests()[1].header("if-range"), Some("\"v0\""));
        assert_eq!(case.server.requests().len(), if obeys { 2 } else { 3 });
    }
}

#[test]
fn pieces_that_do_not_fit_are_replaced_by_one_whole_answer() {
    // Without an ETag, only the checksum can reveal the change.
    let case = Case::new(200_000, |number, request, stream, body| match (number, request.from()) {
        (0, _) => answer(stream, "200 OK", &[length_of(body)], &[1; 50_000]),
        (_, Some(from)) => {
            let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
            answer(stream, "206 Partial Content", &[length_of(&body[from..]), range], &body[from..]);
        }
        (_, None) => whole(stream, body),
    });
    case.run().unwrap();
    assert_eq!(std::fs::read(case.path("x.gz")).unwrap(), case.body);
    assert_eq!(case.server.requests().len(), 3);
    assert!(case.server.requests()[1].header("if-range").is_none());
}

#[test]
fn status_416_completes_or_starts_over() {
    for complete in [true, false] {
        let case = Case::new(60_000, move |_, request, stream, body| match request.from() {
            Some(_) => answer(
                stream,
                "416 Range Not Satisfiable",
                &["Content-Range: bytes */60000".into(), "Content-Length: 0".into()],
                b"",
            ),
            None => {
                assert!(!complete);
                whole(stream, body);
            }
        })
        .without_length();
        std::fs::create_dir_all(case.path("")).unwrap();
        let have = if complete { 60_000 } else { 59_000 };
        std::fs::write(case.path("x.gz.part"), &case.body[..have]).unwrap();
        case.run().unwrap();
        case.assert_whole();
        assert_eq!(case.server.requests().len(), if complete { 1 } else { 2 });
    }
}

#[test]
fn a_server_error_is_tried_again_and_a_missing_file_is_not() {
    let case = Case::new(10_000, |number, _, stream, body| match number {
        0 => answer(stream, "500 Internal Server Error", &["Content-Length: 0".into()], b""),
        1 => answer(stream, "503 Service Unavailable", &["Content-Length: 0".into()], b""),
        _ => whole(stream, body),
    });
    case.run().unwrap();
    case.assert_whole();

    let case = Case::new(10_000, |_, _, stream, _| answer(stream, "404 Not Found", &["Content-Length: 0".into()], b""));
    case.assert_refused(&["404 Not Found", &case.server.url("x.gz")]);
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn the_next_address_is_tried() {
    let mut case = Case::new(10_000, |number, _, stream, body| match number {
        0 => answer(stream, "403 Forbidden", &["Content-Length: 0".into()], b""),
        _ => whole(stream, body),
    });
    let second = case.server.url("mirror");
    case.publisher.files[0].urls.push(second.clone());
    assert_eq!(case.run().unwrap().files[0].origin, Origin::Downloaded(second));
    case.assert_whole();
}

#[test]
fn a_redirection_is_followed_and_keeps_the_range() {
    let case = Case::new(80_000, |number, request, stream, body| match number {
        0 | 2 => answer(stream, "302 Found", &["Location: /elsewhere".into(), "Content-Length: 0".into()], b""),
        1 => broken(stream, body, 30_000),
        _ => partial(stream, body, request.from().unwrap()),
    });
    case.run().unwrap();
    case.assert_whole();
    let lines: Vec<String> = case.server.requests().iter().map(|request| request.0[0].clone()).collect();
    let (first, second) = ("get /x.gz http/1.1", "get /elsewhere http/1.1");
    assert_eq!(lines, [first, second, first, second]);
}

#[test]
fn a_web_page_is_refused_by_type_and_by_content() {
    let page = b"<!DOCTYPE html><html><body>Please log in</body></html>";
    for typed in [true, false] {
        let case = Case::new(1_000, move |_, _, stream, _| {
            let mut headers = vec![length_of(page)];
            headers.extend(typed.then(|| "Content-Type: text/html; charset=utf-8".to_owned()));
            answer(stream, "200 OK", &headers, page);
        })
        .without_length();
        case.assert_refused(&["web page", &case.server.url("x.gz")]);
        assert_eq!(case.server.requests().len(), 1);
        assert!(names(&case.path("")).is_empty(), "{:?}", names(&case.path("")));
    }
}

#[test]
fn rubbish_of_the_right_length_is_moved_aside() {
    let case = Case::new(5_000, |_, _, stream, body| whole(stream, &vec![7; body.len()]));
    let expected = digests(case.body.as_slice()).unwrap().md5;
    let found = digests([7; 5_000].as_slice()).unwrap().md5;
    let error = case.assert_refused(&[&expected, &found, "printed in the test"]);
    assert!(matches!(error, DataError::Checksum { .. }));
    assert_eq!(names(&case.path("")), ["x.gz.bad"]);
    assert_eq!(status(&case.publisher, case.root.path()).unwrap(), Status::Absent);
}

#[test]
fn announced_lengths_must_fit() {
    let wrong: [fn(&mut TcpStream, &[u8]); 2] =
        [|stream, body| whole(stream, &body[1..]), |stream, body| whole(stream, &[body, b"more"].concat())];
    for send in wrong {
        let case = Case::new(5_000, move |_, _, stream, body| send(stream, body));
        case.assert_refused(&["it announces", "expected 5000 bytes", "length in the test"]);
    }
    // Shorter than the published file, which only the checksum can reveal.
    let case = Case::new(5_000, |_, _, stream, body| whole(stream, &body[..4_000])).without_length();
    assert!(matches!(case.assert_refused(&["MD5"]), DataError::Checksum { .. }));
}

#[test]
fn a_body_without_end_is_cut_off() {
    let case = Case::new(50_000, |_, _, stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        // Ends when the client closes the connection.
        while stream.write_all(&[3; 65_536]).is_ok() {}
    });
    case.assert_refused(&["more than 50000 bytes"]);
    assert!(names(&case.path("")).is_empty());
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn a_body_without_length_may_end_with_the_connection() {
    let case = Case::new(50_000, |number, _, stream, body| {
        answer(stream, "200 OK", &[], if number == 0 { &body[..20_000] } else { body });
    });
    case.run().unwrap();
    case.assert_whole();
}

#[test]
fn a_silent_server_is_given_up() {
    let case = Case::new(1_000, |_, _, stream, body| {
        broken(stream, body, 10);
        // Keeps the connection open without sending anything until the client closes it.
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let patience = FetchOptions { stall_timeout: Duration::from_millis(60), attempts: 2, ..options() };
    let begin = Instant::now();
    let result = fetch(&case.publisher, case.root.path(), &patience, &AtomicBool::new(false), &mut |_| {});
    let message = result.unwrap_err().to_string();
    assert!(message.to_lowercase().contains("timeout"), "{message}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(std::fs::read(case.path("x.gz.part")).unwrap(), case.body[..10]);
}

#[test]
fn https_speaks_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut case = Case::new(1_000, |_, _, _, _| {});
    case.publisher.files[0].urls = vec![format!("https://{}/x.gz", listener.local_addr().unwrap())];
    let peer = std::thread::spawn(move || {
        let mut first = [0];
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut first).unwrap();
        let _ = stream.write_all(b"this is no TLS\r\n\r\n");
        first[0]
    });
    let patience = FetchOptions { attempts: 1, ..options() };
    let result = fetch(&case.publisher, case.root.path(), &patience, &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(result, Err(DataError::Download(_))));
    // A record of type handshake, RFC 8446 section 5.1.
    assert_eq!(peer.join().unwrap(), 22);
}

#[test]
fn nobody_listening_is_a_message() {
    let mut case = Case::new(1_000, |_, _, _, _| {});
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    case.publisher.files[0].urls = vec![format!("http://{free}/x.gz")];
    assert!(matches!(case.assert_refused(&["3 attempts"]), DataError::Download(_)));
}

#[test]
fn a_stop_keeps_the_part_and_the_next_run_goes_on() {
    let case = Case::new(1_000_000, |number, request, stream, body| match number {
        0 => whole(stream, body),
        _ => partial(stream, body, request.from().unwrap()),
    });
    let stop = AtomicBool::new(false);
    let mut after_some = |progress: Progress<'_>| stop.store(progress.done > 0, Ordering::Relaxed);
    let error = fetch(&case.publisher, case.root.path(), &options(), &stop, &mut after_some).unwrap_err();
    assert!(matches!(&error, DataError::Stopped(what) if what.contains("x.gz.part")), "{error}");
    let kept = std::fs::metadata(case.path("x.gz.part")).unwrap().len() as usize;
    assert!(kept > 0 && kept < 1_000_000, "{kept}");
    case.run().unwrap();
    case.assert_whole();
    assert_eq!(case.server.requests()[1].from(), Some(kept));
}

#[test]
fn a_directory_in_the_way_is_an_error_with_its_path() {
    let case = Case::new(1_000, |_, _, stream, body| whole(stream, body));
    std::fs::create_dir_all(case.path("x.gz.part")).unwrap();
    let message = case.run().unwrap_err().to_string();
    assert!(message.contains("x.gz.part"), "{message}");
}

// ---------------------------------------------------------------- files put there by hand, checks

#[test]
fn a_file_put_there_by_hand_is_verified_and_used() {
    let case = Case::new(4_000, |_, _, _, _| panic!("nobody should ask the server"));
    std::fs::create_dir_all(case.path("")).unwrap();
    std::fs::write(case.path("x.gz"), &case.body).unwrap();
    std::fs::write(case.path("x.gz.part"), b"left by an earlier download").unwrap();
    assert!(matches!(status(&case.publisher, case.root.path()).unwrap(), Status::Unverified { bytes: 4_000, .. }));
    assert_eq!(case.run().unwrap().files[0].origin, Origin::FoundUnverified);
    case.assert_whole();
}

#[test]
fn a_wrong_file_put_there_by_hand_is_moved_aside() {
    let case = Case::new(4_000, |_, _, _, _| panic!("nobody should ask the server"));
    std::fs::create_dir_all(case.path("")).unwrap();
    std::fs::write(case.path("x.gz"), b"<html>404</html>").unwrap();
    case.assert_refused(&["expected 4000 bytes", "16 bytes", "web page", "x.gz.bad"]);
    assert_eq!(names(&case.path("")), ["x.gz.bad"]);
}

#[test]
fn check_tells_verified_wrong_and_missing() {
    let case = Case::new(4_000, |_, _, stream, body| whole(stream, body));
    assert!(matches!(check(&case.publisher, case.root.path()), Err(DataError::Missing(_))));
    std::fs::create_dir_all(case.path("")).unwrap();
    std::fs::write(case.path("x.gz"), &case.body).unwrap();
    let report = check(&case.publisher, case.root.path()).unwrap();
    assert!(report.is_sound() && report.to_string().starts_with("verified"), "{report}");
    case.assert_whole();

    let mut changed = case.body.clone();
    changed[17] ^= 1;
    std::fs::write(case.path("x.gz"), &changed).unwrap();
    let report = check(&case.publisher, case.root.path()).unwrap();
    assert!(!report.is_sound());
    assert!(matches!(report.findings[..], [fairtat::data::download::Finding { verdict: Verdict::Wrong { .. }, .. }]));
    assert_eq!(names(&case.path("")), ["x.gz.bad"]);
    case.run().unwrap();
    assert_eq!(std::fs::read(case.path("x.gz")).unwrap(), case.body);
}

// ---------------------------------------------------------------- archives

const A: &[u8] = b"first file";
const B: &[u8] = &[5; 70_000];

/// A gzip-compressed tar of `in/a.bin` and `in/b.bin`, from a server that serves it whole.
fn archive_case() -> Case {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, body) in [("in/a.bin", A), ("in/b.bin", B)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, body).unwrap();
    }
    let body = builder.into_inner().unwrap().finish().unwrap();
    let copy = body.clone();
    let server = Server::start(move |_, _, stream| whole(stream, &copy));
    let publisher = published(&server, "x.tar.gz", &body, Packing::TarGz { directory: "in".into() });
    Case { server, publisher, root: tempfile::tempdir().unwrap(), body }
}

#[test]
fn an_archive_is_unpacked_with_its_own_directory() {
    let case = archive_case();
    let mut unpacking = 0;
    let mut note = |progress: Progress<'_>| unpacking += usize::from(progress.phase == Phase::Unpacking);
    let fetched = fetch(&case.publisher, case.root.path(), &options(), &AtomicBool::new(false), &mut note).unwrap();
    assert!(unpacking > 0);
    assert_eq!(fetched.data, case.path("in"));
    assert_eq!(std::fs::read(case.path("in/a.bin")).unwrap(), A);
    assert_eq!(std::fs::read(case.path("in/b.bin")).unwrap(), B);
    assert_eq!(names(&case.path("")), ["in", "in.sha256", "x.tar.gz", "x.tar.gz.sha256"]);
    let record = std::fs::read_to_string(case.path("in.sha256")).unwrap();
    assert!(record.contains(&format!("{}  in/b.bin\n", digests(B).unwrap().sha256)), "{record}");
    let bytes = (A.len() + B.len() + case.body.len()) as u64;
    assert_eq!(status(&case.publisher, case.root.path()).unwrap(), Status::Verified { bytes });
    assert_eq!(check(&case.publisher, case.root.path()).unwrap().findings.len(), 3);
}

#[test]
fn without_its_archive_a_set_is_checked_against_the_record() {
    let case = archive_case();
    let lean = FetchOptions { keep_archives: false, ..options() };
    fetch(&case.publisher, case.root.path(), &lean, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(names(&case.path("")), ["in", "in.sha256"]);
    let report = check(&case.publisher, case.root.path()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert!(matches!(&report.findings[0].verdict, Verdict::Unchecked { why } if why.contains("not here")));
    assert_eq!(case.run().unwrap().files[0].origin, Origin::FoundVerified);
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn a_damaged_unpacked_file_is_found_and_unpacked_anew() {
    let case = archive_case();
    case.run().unwrap();
    let mut damaged = B.to_vec();
    damaged[0] = 6;
    std::fs::write(case.path("in/b.bin"), damaged).unwrap();
    let report = check(&case.publisher, case.root.path()).unwrap();
    assert!(!report.is_sound() && report.to_string().contains("wrong"), "{report}");
    assert!(matches!(status(&case.publisher, case.root.path()).unwrap(), Status::Unverified { .. }));
    case.run().unwrap();
    assert_eq!(std::fs::read(case.path("in/b.bin")).unwrap(), B);
    assert!(case.path("in.unverified-1").is_dir());
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn a_killed_unpacking_leaves_nothing_that_counts() {
    let case = archive_case();
    case.run().unwrap();
    // As if the process had been killed: an incomplete directory under the temporary name, none under the final one.
    std::fs::rename(case.path("in"), case.path(".unpacking")).unwrap();
    std::fs::remove_file(case.path(".unpacking/a.bin")).unwrap();
    assert!(matches!(status(&case.publisher, case.root.path()).unwrap(), Status::Unverified { .. }));
    case.run().unwrap();
    assert_eq!(names(&case.path("in")), ["a.bin", "b.bin"]);
    assert!(!case.path(".unpacking").exists());
}

#[test]
fn a_stop_while_unpacking_keeps_the_archive_only() {
    let case = archive_case();
    let stop = AtomicBool::new(false);
    let mut at_unpacking = |progress: Progress<'_>| stop.store(progress.phase == Phase::Unpacking, Ordering::Relaxed);
    let error = fetch(&case.publisher, case.root.path(), &options(), &stop, &mut at_unpacking).unwrap_err();
    assert!(matches!(error, DataError::Stopped(_)));
    assert_eq!(names(&case.path("")), ["x.tar.gz", "x.tar.gz.sha256"]);
    check(&case.publisher, case.root.path()).unwrap();
    assert_eq!(std::fs::read(case.path("in/a.bin")).unwrap(), A);
    assert_eq!(case.server.requests().len(), 1);
}
