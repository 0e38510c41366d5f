//! One connection, and how long is waited for it.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Error, Result};
use super::hosts::Host;
use super::lease::PING;

/// How long connecting may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectLimits {
    /// Until something takes the connection.
    pub reach: Duration,
    /// Until the session has begun: a server that was asleep takes connections before it is awake.
    pub answer: Duration,
}

impl ConnectLimits {
    /// Connects with these options of the host's.
    ///
    /// An attempt that takes long is not given up while the host takes connections: it goes on, and
    /// another one is made beside it, in case that the first got lost.
    pub async fn connect(self, options: &PgConnectOptions, host: &Host) -> Result<PgConnection> {
        let Self { reach, answer } = self;
        let late =
            |timeout| Error::ConnectTimeout { address: host.target.address.clone(), timeout };
        let told = |error| Error::from_connect(error, &host.target);
        let end = Instant::now() + answer;
        let mut first = options.connect().boxed();
        if let Ok(connected) = timeout(reach, &mut first).await {
            return connected.map_err(told);
        }
        if answer <= reach || !takes_connections(options).await {
            return Err(late(reach));
        }
        match timeout_at(end, select_ok([first, options.connect().boxed()])).await {
            Ok(connected) => connected.map(|(connection, _)| connection).map_err(told),
            Err(_) => Err(late(answer)),
        }
    }
}

/// Whether anything takes connections there.
async fn takes_connections(options: &PgConnectOptions) -> bool {
    if options.get_socket().is_some() {
        return true;
    }
    let address = (options.get_host(), options.get_port());
    matches!(timeout(PING, TcpStream::connect(address)).await, Ok(Ok(_)))
}
