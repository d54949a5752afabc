//! Requests to the hub: with time-outs, and tried again where the hub is busy or the line breaks.

use super::{Failure, Kind};
use crate::error::counted;
use crate::progress::say;
use std::fs::File;
use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

/// Times that a request is made. Where part of a file has arrived, they are counted anew.
const ATTEMPTS: u32 = 4;
/// Longest wait that the hub may ask for; its limits are for windows of five minutes.
const MOST_WAIT: Duration = Duration::from_secs(330);
/// Ways that one request may be sent on.
const MOST_REDIRECTS: usize = 8;

/// A connection to one hub.
pub(crate) struct Client {
    agent: Agent,
    /// `https://huggingface.co`
    endpoint: String,
    token: Option<String>,
    /// What is asked for.
    kind: Kind,
}

/// A file's answer, and the headers of the hub itself, where another host has the file.
struct Answer {
    headers: HeaderMap,
    response: Response<Body>,
}

impl Client {
    pub(crate) fn new(endpoint: &str, token: Option<String>, timeout: Duration, kind: Kind) -> Client {
        let config = Agent::config_builder()
            .user_agent(concat!("hbt/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Followed here: the first answer's headers are wanted, and no other host is to see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .build();
        Client { agent: config.into(), endpoint: endpoint.trim_end_matches('/').to_owned(), token, kind }
    }

    /// The text at `path`.
    pub(crate) fn text(&self, path: &str) -> Result<String, Failure> {
        let mut tries = Tries::new();
        loop {
            let Answer { response, .. } = self.get(path, 0, &mut tries)?;
            let mut text = String::new();
            match response.into_body().into_reader().read_to_string(&mut text) {
                Ok(_) => return Ok(text),
                Err(e) => tries.after(&e.to_string())?,
            }
        }
    }

    /// Appends to `file` what it lacks of the file at `path`, and returns the name that the hub gives its content. `progress`
    /// is given the bytes that have arrived, and all.
    pub(crate) fn download(
        &self,
        path: &str,
        file: &mut File,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Option<String>, Failure> {
        let mut tries = Tries::new();
        loop {
            let mut start = file.metadata().map_err(Failure::disk)?.len();
            let Answer { headers, response } = self.get(path, start, &mut tries)?;
            if response.status().as_u16() != PARTIAL && start > 0 {
                file.set_len(0).map_err(Failure::disk)?;
                start = 0;
            }
            let length = number(response.headers(), "content-length");
            let all = length.map(|length| start + length);
            let mut arrived = start;
            let ended = copy(response, file, &mut |n| {
                arrived += n;
                progress(arrived, all);
            })?;
            if ended.is_ok() && all.is_none_or(|all| all == arrived) {
                return Ok(etag(&headers));
            }
            if arrived > start {
                tries = Tries::new();
            }
            tries.after(&ended.err().map_or_else(|| "the answer ended early".to_owned(), |e| e.to_string()))?;
        }
    }

    /// The answer to a request for what is at `path` from byte `start` on.
    fn get(&self, path: &str, start: u64, tries: &mut Tries) -> Result<Answer, Failure> {
        loop {
            match self.get_once(path, start) {
                Ok(answer) => match answer.response.status().as_u16() {
                    OK | PARTIAL => return Ok(answer),
                    // All of it is there already, or more than there is.
                    UNSATISFIABLE if start > 0 => return self.get(path, 0, tries),
                    status if status == TOO_MANY || status >= 500 => {
                        tries.after_status(status, answer.response.headers())?;
                    }
                    status => return Err(Failure::of_status(status, self.kind)),
                },
                Err(e) if is_passing(&e) => tries.after(&e.to_string())?,
                Err(e) => return Err(Failure::unreachable(&e.to_string())),
            }
        }
    }

    fn get_once(&self, path: &str, start: u64) -> Result<Answer, ureq::Error> {
        let mut url = format!("{}{path}", self.endpoint);
        let mut of_hub = HeaderMap::new();
        for _ in 0..MOST_REDIRECTS {
            // Compressed, a part of a file would be a part of something else.
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url) == origin(&self.endpoint)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            let response = request.call()?;
            let mut headers = response.headers().clone();
            headers.extend(of_hub);
            of_hub = headers;
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            match location.filter(|_| response.status().is_redirection()) {
                None => return Ok(Answer { headers: of_hub, response }),
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    url = format!("{}{path}", origin(&url))
                }
                Some(other) if other.starts_with("https://") || !url.starts_with("https://") => url = other.to_owned(),
                Some(other) => return Err(ureq::Error::BadUri(other.to_owned())),
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }
}

const OK: u16 = 200;
const PARTIAL: u16 = 206;
const UNSATISFIABLE: u16 = 416;
const TOO_MANY: u16 = 429;

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    &url[..url[host..].find('/').map_or(url.len(), |at| host + at)]
}

/// Errors that another try may not have.
fn is_passing(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(e) => {
            matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
        }
        _ => false,
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The hash of a file's content by which the cache's blobs are called: that of the hub's large files, else the answer's.
fn etag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag").or_else(|| headers.get("etag"))?.to_str().ok()?;
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_safe = !tag.is_empty() && !tag.starts_with('.') && tag.chars().all(is_name);
    is_safe.then(|| tag.to_owned())
}

/// Copies the body; the inner error is the network's, the outer one the disk's.
fn copy(response: Response<Body>, file: &mut File, arrived: &mut dyn FnMut(u64)) -> Result<io::Result<()>, Failure> {
    let mut reader = response.into_body().into_reader();
    let mut piece = vec![0; 1 << 16];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => {
                file.write_all(&piece[..n]).map_err(Failure::disk)?;
                arrived(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Ok(Err(e)),
        }
    }
}

/// How often a request has been made in vain.
struct Tries(u32);

impl Tries {
    fn new() -> Tries {
        Tries(0)
    }

    /// Waits after a line that broke, as told by `why`; fails after the last try.
    fn after(&mut self, why: &str) -> Result<(), Failure> {
        let wait = Duration::from_secs(1 << self.0);
        self.0 += 1;
        if self.0 == ATTEMPTS {
            return Err(Failure::unreachable(&format!("{why}; tried {ATTEMPTS} times")));
        }
        say(&format!("the hub does not answer ({why}); trying again in {}", seconds(wait)));
        sleep(wait);
        Ok(())
    }

    /// Waits as long as a hub that is busy asks for.
    fn after_status(&mut self, status: u16, headers: &HeaderMap) -> Result<(), Failure> {
        let asked = number(headers, "retry-after").or_else(|| rate_limit_reset(headers)).map(Duration::from_secs);
        let wait = asked.unwrap_or(Duration::from_secs(1 << self.0));
        self.0 += 1;
        if self.0 == ATTEMPTS || wait > MOST_WAIT {
            return Err(Failure::busy(status, self.0, asked.map(seconds)));
        }
        say(&format!("the hub answers {status}; trying again in {}", seconds(wait)));
        sleep(wait);
        Ok(())
    }
}

fn seconds(wait: Duration) -> String {
    counted(wait.as_secs(), "second")
}

/// The seconds in the hub's header `ratelimit: "api";r=0;t=55`.
fn rate_limit_reset(headers: &HeaderMap) -> Option<u64> {
    headers.get("ratelimit")?.to_str().ok()?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
}
