//! Ctrl-C and SIGTERM.

use tokio::sync::watch;

use crate::INTERRUPTED;

/// Counts the signals that ask the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<u32>);

impl Interrupt {
    /// Begins to listen. With `once` a second signal ends the process at once, as a crash would.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub(crate) fn listen(once: bool) -> std::io::Result<Self> {
        let (tell, told) = watch::channel(0);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            loop {
                signals.next().await;
                if once && *tell.borrow() > 0 {
                    std::process::exit(INTERRUPTED.into());
                }
                tell.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(told))
    }

    /// Comes back at the next signal from now on.
    pub(crate) async fn next(&self) {
        let mut told = self.0.clone();
        told.mark_unchanged();
        if told.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Comes back when there was a signal.
    pub(crate) async fn any(&self) {
        let mut told = self.0.clone();
        if told.wait_for(|count| *count > 0).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
