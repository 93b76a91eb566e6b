//! The task that reads lines from the connection, and connects again when it breaks.

use std::sync::Arc;
use std::time::Duration;

use highwater_core::{Clock, Error, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::SocketSourceOptions;
use super::buffer::{Buffer, Line};

/// The pause before the first new attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A running reader; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reader(AbortHandle);

impl Reader {
    /// Connects, and reads lines into `buffer` from then on.
    ///
    /// # Errors
    /// `Unavailable`, naming host and port, when nobody listens there.
    pub(super) async fn start(
        options: SocketSourceOptions,
        clock: Arc<dyn Clock>,
        buffer: Arc<Buffer>,
        runtime: &Handle,
    ) -> Result<Self> {
        let address = (options.host.clone(), options.port);
        let first = runtime.spawn(TcpStream::connect(address)).await;
        let first = first.map_err(|e| cannot_connect(&options).with_source(e))?;
        let first = first.map_err(|e| cannot_connect(&options).with_source(e))?;
        let task = runtime.spawn(read(first, options, clock, buffer));
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn cannot_connect(options: &SocketSourceOptions) -> Error {
    let SocketSourceOptions { host, port, .. } = options;
    Error::unavailable(format!("source `socket` cannot connect to {host}:{port}"))
        .with_hint(format!("start the server first, such as `nc -lk {port}`"))
}

async fn read(
    first: TcpStream,
    options: SocketSourceOptions,
    clock: Arc<dyn Clock>,
    buffer: Arc<Buffer>,
) {
    let SocketSourceOptions { host, port, .. } = options;
    let mut pause = FIRST_PAUSE;
    let mut connection = Ok(first);
    loop {
        let ended = match connection {
            Ok(stream) => {
                let before = pause;
                pause = FIRST_PAUSE;
                let ended = lines(stream, &*clock, &buffer).await;
                if ended.as_ref().is_ok_and(|lines| *lines == 0) {
                    // Accepted and closed at once: no better than refused.
                    pause = before;
                }
                ended.map(drop)
            }
            Err(error) => Err(error),
        };
        tracing::warn!(%host, port, ?pause, error = ?ended.err(), "the connection ended; connecting again");
        clock.sleep_until(clock.now().plus(pause)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
        connection = TcpStream::connect((host.as_str(), port)).await;
    }
}

/// Reads lines to the end of the connection; how many came.
async fn lines(stream: TcpStream, clock: &dyn Clock, buffer: &Buffer) -> std::io::Result<u64> {
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    let mut count = 0;
    while stream.read_until(b'\n', &mut bytes).await? > 0 {
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        buffer.push(Line {
            text: String::from_utf8_lossy(line).into_owned(),
            came: clock.now().floor_to_millis(),
        });
        bytes.clear();
        count += 1;
    }
    Ok(count)
}
