//! The connection on which changes are told.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::future::select;
use futures_util::stream;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use super::connect::Driver;
use super::connect::poll_over;
use super::failure::Failure;
use super::failure::Then;
use super::link::Link;
use super::link::Parameter;
use super::table::Table;
use crate::error::BoxError;
use crate::store::BoxResult;
use crate::store::notices::Wire;
use crate::time::timeout;

/// What is told and not looked at yet. Beyond that it waits in the server.
const WAITING: usize = 256;

/// Who is at the other end of a connection: no two have the same at a time.
const WHO: &str = "SELECT pg_backend_pid()";

const TELL: &str = "SELECT pg_notify($1, $2)";

/// A pooler has given a connection that listens to somebody else: so often it is asked for again, so long.
const TRIES: usize = 4;
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Ears {
    link: Arc<Link>,
    table: Arc<Table>,
    /// Where this process tells itself something: it costs the others nothing.
    own: String,
}

/// A connection that is to listen.
struct Line {
    client: Client,
    driver: Box<dyn Driver>,
    is_direct: Arc<AtomicBool>,
    listen: String,
    unlisten: String,
}

impl Ears {
    pub(super) fn new(link: Arc<Link>, table: Arc<Table>) -> Self {
        Self {
            link,
            own: format!("{}_{:016x}", table.channel, fastrand::u64(..)),
            table,
        }
    }

    async fn start(&self) -> Result<BoxStream<'static, String>, BoxError> {
        let is_direct = self.link.is_direct.clone();
        is_direct.store(false, Ordering::Relaxed);
        let (client, driver) = self.link.servers.connect().await?;
        let (all, own) = (&self.table.channel, &self.own);
        let mut line = Line {
            client,
            driver,
            is_direct,
            listen: format!("LISTEN {all}; LISTEN {own}; {WHO}"),
            unlisten: format!("UNLISTEN {all}; UNLISTEN {own}; {WHO}"),
        };
        let who = line.who(WHO).await?;
        // What a pooler does is seen by this: two connections, and the same at the other end of both. To
        // listen there would be to leave it to whoever gets that connection next.
        let is_own = self.query(WHO, &[]).await? != Some(who) && line.who(WHO).await? == who;
        if !is_own {
            return Err("a pooler gives each statement any connection, so nothing is heard".into());
        }
        let listens = line.who(&line.listen.clone()).await?;
        let (tell, mut told) = mpsc::channel(WAITING);
        tokio::spawn(line.pass_on(tell, listens));
        Ok(stream::poll_fn(move |context| told.poll_recv(context)).boxed())
    }

    /// By the way on which changes are told, too.
    async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<i32>, Failure> {
        let table = &self.table.name;
        let number = self.link.query(table, statement, parameters, |rows| {
            Ok(rows.first().and_then(|row| row.try_get(0).ok()))
        });
        number.await
    }
}

impl Wire for Ears {
    fn listen(&self) -> BoxResult<'_, BoxStream<'static, String>> {
        Box::pin(self.start())
    }

    fn tell<'a>(&'a self, text: &'a str) -> BoxResult<'a, ()> {
        Box::pin(async move {
            self.query(TELL, &[(&self.own, Type::TEXT), (&text, Type::TEXT)])
                .await?;
            Ok(())
        })
    }
}

impl Line {
    /// Runs this, as one transaction, and tells who has.
    async fn who(&mut self, statements: &str) -> Result<i32, Failure> {
        let lost = || Failure::new("the connection to PostgreSQL has failed", Then::Lost);
        let answer = pin!(self.client.simple_query(statements));
        // Before it listens, nothing is told.
        let over = poll_fn(|context| poll_over(&mut *self.driver, context));
        let answer = match select(answer, over).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => return Err(lost()),
        };
        let answer = answer.map_err(|error| Failure::of_statement(&error, ""))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        row.ok_or_else(lost)
    }

    /// Until nobody is left to hear, or nothing to hear it on.
    async fn pass_on(mut self, tell: mpsc::Sender<String>, listens: i32) {
        loop {
            let next = poll_fn(|context| self.driver.poll_message(context));
            let message = match select(pin!(tell.closed()), next).await {
                Either::Left(_) => break,
                Either::Right((message, _)) => message,
            };
            match message {
                Some(Ok(AsyncMessage::Notification(it))) => {
                    // A connection that hears what is told on another one is nobody else's.
                    self.is_direct.store(true, Ordering::Relaxed);
                    if tell.send(it.payload().to_owned()).await.is_err() {
                        break;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
        // A connection of one's own would forget it by being closed. A pooler may have kept this from us.
        let farewell = async {
            for _ in 0..TRIES {
                if self.who(&self.unlisten.clone()).await? == listens {
                    break;
                }
            }
            Ok::<_, Failure>(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}
