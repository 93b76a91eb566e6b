//! A server that really speaks S3, on loopback: moto, or one that is given.
//!
//! | `HIGHWATER_S3` | what is used |
//! |---|---|
//! | not set | `moto_server` from `target/moto/bin` or the `PATH`; without it the tests say that they did not run |
//! | `required` | the same, and without it the tests fail: continuous integration sets this |
//! | `http://127.0.0.1:9000/bucket` | that server; its bucket must be there, and should be empty. Credentials as in `AWS_…` |
//!
//! moto keeps everything in its memory and dies with the [`S3Server`]. It looks whether an object is there and then writes it,
//! in two steps, so of two that create one at the same moment both may win. Tests that are about that need another server.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use highwater::{Error, Result};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use url::Url;

/// The variable that says which server to use.
pub const VARIABLE: &str = "HIGHWATER_S3";

/// How to come by a server.
pub const HOW: &str = "install moto: `python3 -m venv target/moto && target/moto/bin/pip install 'moto[server]==5.2.5'`; or \
     set HIGHWATER_S3 to the URL of a bucket of another server, such as http://127.0.0.1:9000/bucket";

/// The bucket of a moto of ours.
const BUCKET: &str = "highwater";

/// A server that does not say where it is after so long will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and a bucket on it.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    bucket: String,
    /// Ours, and to be killed.
    moto: Option<Child>,
}

impl S3Server {
    /// The server that there is; `None`, told on standard error whatever the test harness captures, when there is none
    /// and none is required.
    ///
    /// # Errors
    /// `Unavailable` when there is none though one is required, or it does not answer.
    pub fn find() -> Result<Option<Self>> {
        let asked = env::var(VARIABLE).unwrap_or_default();
        if asked.starts_with("http") {
            return Self::given(&asked).map(Some);
        }
        let required = match asked.as_str() {
            "" => false,
            "required" => true,
            other => {
                return Err(Error::invalid(format!(
                    "{VARIABLE} is `{other}`: it must be `required` or a URL"
                )));
            }
        };
        match Self::moto()? {
            Some(server) => Ok(Some(server)),
            None if required => Err(Error::unavailable("there is no S3 server").with_hint(HOW)),
            None => {
                // Not by `eprintln!`, which a test that passes keeps to itself.
                let told = format!("\nNOT RUN: the proofs against S3 need a server: {HOW}\n\n");
                io::stderr().write_all(told.as_bytes())?;
                Ok(None)
            }
        }
    }

    fn given(url: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{VARIABLE} is `{url}`: it has no bucket"));
        let parsed = Url::parse(url).map_err(|e| wrong().with_source(e))?;
        let bucket = parsed.path().trim_matches('/').to_owned();
        if bucket.is_empty() {
            return Err(wrong());
        }
        let endpoint = parsed.origin().ascii_serialization();
        Ok(Self {
            endpoint,
            bucket,
            moto: None,
        })
    }

    /// A moto of our own; `None` when it is not installed.
    fn moto() -> Result<Option<Self>> {
        let mut spawned = Err(io::Error::from(io::ErrorKind::NotFound));
        for program in programs() {
            // With port 0 the system chooses a free one, and moto tells which.
            spawned = Command::new(program)
                .args(["-H", "127.0.0.1", "-p", "0"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            if spawned.is_ok() {
                break;
            }
        }
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::from(error).context("starting moto_server")),
        };
        let (said, lines) = channel();
        if let Some(out) = child.stdout.take() {
            listen(out, said.clone());
        }
        if let Some(err) = child.stderr.take() {
            listen(err, said);
        }
        // From here on it is killed, whatever happens.
        let mut server = Self {
            endpoint: String::new(),
            bucket: BUCKET.to_owned(),
            moto: Some(child),
        };
        let address = address(&lines)?;
        server.endpoint = format!("http://{address}");
        make_bucket(&address)?;
        Ok(Some(server))
    }

    /// The bucket as a store.
    ///
    /// # Errors
    /// `Invalid` when it cannot be built.
    pub fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        let builder = match self.moto {
            Some(_) => AmazonS3Builder::new()
                .with_access_key_id("moto")
                .with_secret_access_key("moto")
                .with_region("us-east-1"),
            None => AmazonS3Builder::from_env(),
        };
        let store = builder
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_allow_http(true)
            .build()?;
        Ok(Arc::new(store))
    }

    /// Where the bucket is: `s3://bucket`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    /// True when of two that create an object at the same moment one wins.
    #[must_use]
    pub fn races_are_fair(&self) -> bool {
        self.moto.is_none()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(moto) = &mut self.moto {
            // It may have ended by itself.
            drop(moto.kill());
            drop(moto.wait());
        }
    }
}

/// Where moto may be.
fn programs() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    [
        root.join("target/moto/bin/moto_server"),
        "moto_server".into(),
    ]
}

/// Sends lines on, and goes on reading when nobody listens any more, so that the writer is never stuck.
fn listen(from: impl Read + Send + 'static, to: std::sync::mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(io::Result::ok) {
            drop(to.send(line));
        }
    });
}

/// The address that moto tells: ` * Running on http://127.0.0.1:38275`.
fn address(lines: &Receiver<String>) -> Result<String> {
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                if let Some((_, address)) = line.split_once("Running on http://") {
                    return Ok(address.trim().trim_end_matches('/').to_owned());
                }
                said.push(line);
            }
            Err(why) => {
                let why = match why {
                    RecvTimeoutError::Timeout => "does not say where it is",
                    RecvTimeoutError::Disconnected => "has ended",
                };
                return Err(Error::unavailable(format!(
                    "moto_server {why}: {}",
                    said.join("\n")
                )));
            }
        }
    }
}

/// Makes the bucket; moto asks for no signature.
fn make_bucket(address: &str) -> Result<()> {
    let context = |e: io::Error| Error::from(e).context(format!("moto_server at {address}"));
    let mut stream = TcpStream::connect(address).map_err(context)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(context)?;
    let request = format!(
        "PUT /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(context)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(context)?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Error::unavailable(format!(
            "moto_server made no bucket: {answer}"
        ))),
    }
}
