//! The rounds: the access token expires, all processes want to go on, and something goes wrong.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::{Request, header::CONTENT_TYPE};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_token_refresh::TokenSet;

use crate::{
    backend::{Backend, Config},
    faults::{Blow, Fault, Plan, Trap},
    fingerprint::Fingerprint,
    members::{Heard, Member, Nursery},
    messages::Report,
    options::Options,
    outcome::Outcome,
    place::Ground,
    proxy::{Book, Grant, Proxy, now},
    signals::Living,
    speed::Percentiles,
    stored,
    stores::Store,
    view::{Curtain, View},
    words,
};

/// Longer than any process is stopped, and a refresh token left alone after that.
const REMARKABLE: Duration = Duration::from_secs(6);
const TOKEN_LIFE: Duration = Duration::from_secs(1);
/// For processes that were told to begin, or to end.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Fleet {
    options: Options,
    backend: Backend,
    proxy: Proxy,
    book: Arc<Book>,
    trap: Arc<Trap>,
    plan: Plan,
    view: View,
    store: Store,
    members: Vec<Member>,
    nursery: Nursery,
    heard: mpsc::UnboundedReceiver<Heard>,
    recoveries: Vec<Duration>,
    hits: u64,
    hung: u64,
    idle_rounds: Vec<u32>,
    overtime: u64,
    _curtain: Curtain,
    // Last: what the processes stand on.
    ground: Ground,
}

/// What of a round is still to come.
struct Round {
    begun: SystemTime,
    /// Of each member: it has not gone on yet.
    missing: Vec<bool>,
    /// They stop at the moments where something may happen to them.
    halts: bool,
    times: Vec<Duration>,
    /// Of each member: what its last request has failed with.
    errors: Vec<Option<String>>,
}

impl Fleet {
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let backend = Backend::start(Config {
            access_ttl: TOKEN_LIFE,
            rotate: true,
            ..Config::default()
        })
        .await?;
        let (book, living, view) = (
            Arc::<Book>::default(),
            Arc::<Living>::default(),
            View::new(options),
        );
        let ground = Ground::new(options, living.clone()).await?;
        let store = ground.place.store()?;
        let trap = Trap::new(living.clone(), book.clone(), view.clone());
        let proxy = Proxy::start(backend.base(), options, book.clone(), trap.clone()).await?;
        let (sender, heard) = mpsc::unbounded_channel();
        let curtain = Curtain(view.clone());
        let mut fleet = Self {
            nursery: Nursery {
                base: proxy.base.clone(),
                place: ground.place.clone(),
                protocol: options.protocol,
                living,
                trap: trap.clone(),
                heard: sender,
                last: 0,
            },
            plan: Plan::new(options),
            options: options.clone(),
            backend,
            proxy,
            book,
            trap,
            view,
            store,
            members: Vec::new(),
            heard,
            recoveries: Vec::new(),
            hits: 0,
            hung: 0,
            idle_rounds: Vec::new(),
            overtime: 0,
            _curtain: curtain,
            ground,
        };
        fleet.log_in().await?;
        // With connections of its own, which no other answer delays.
        stored::watch(fleet.ground.place.store()?, &fleet.book)?;
        for place in 0..options.processes as usize {
            let member = fleet.start_member(place)?;
            fleet.members.push(member);
        }
        for _ in 0..options.processes {
            let heard = timeout(PATIENCE, fleet.heard.recv()).await;
            let first = heard.context("a process does not start")?;
            let is_ready = first.is_some_and(|it| matches!(it.report, Some(Report::Ready)));
            ensure!(is_ready, "a process has ended at once");
        }
        Ok(fleet)
    }

    pub async fn round(&mut self, number: u32) -> anyhow::Result<()> {
        let before = self.book.oracle().counts();
        let begun = self.live_out().await?;
        let fault = self.plan.next();
        let mut late = None;
        match fault {
            Some(Fault::At(moment, blow)) => self.trap.arm(Some((moment, blow))),
            Some(Fault::After(time, place, blow)) => {
                late = Some((Instant::now() + time, place, blow));
            }
            None => {}
        }
        let mut round = Round {
            begun,
            missing: vec![true; self.members.len()],
            halts: matches!(fault, Some(Fault::At(..))),
            times: Vec::new(),
            errors: vec![None; self.members.len()],
        };
        for member in &self.members {
            member.begin(round.halts);
            self.view.say(member.process, "wants to go on");
        }
        let deadline = Instant::now() + self.options.deadline;
        while round.missing.contains(&true) {
            let moment = late.map_or(deadline, |(at, ..)| at);
            tokio::select! {
                heard = self.heard.recv() => {
                    self.hear(heard.context("nobody is left")?, &mut round).await?;
                }
                () = sleep_until(moment), if late.is_some() => {
                    if let Some((_, place, blow)) = late.take() {
                        self.trap.strike(self.members[place].process, blow, "");
                    }
                }
                () = sleep_until(deadline) => break,
            }
        }
        self.give_up(number, &round)?;
        let hits = self.trap.rest().await;
        let after = self.book.oracle().counts();
        // Whoever goes on with a token that has not expired proves nothing.
        if after.expiries == before.expiries {
            self.idle_rounds.push(number);
        }
        let longest = round.times.iter().max().copied().unwrap_or_default();
        self.overtime += (longest.as_millis() / TOKEN_LIFE.as_millis()) as u64;
        let is_hit = !hits.is_empty() || after.lost > before.lost;
        if is_hit || !self.options.has_faults() {
            self.recoveries.append(&mut round.times);
        }
        self.hits += hits.len() as u64;
        self.tell(number, &hits);
        Ok(())
    }

    pub async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.members.clear();
        let mut left = self.options.processes;
        while left > 0 {
            match timeout(PATIENCE, self.heard.recv()).await {
                Ok(Some(Heard { report: None, .. })) => left -= 1,
                Ok(Some(_)) => {}
                // What does not end is ended with this process.
                Ok(None) | Err(_) => break,
            }
        }
        self.view.close();
        self.look().await;
        let held = self.proxy.hold().await;
        let outcome = Outcome {
            counts: self.book.oracle().counts(),
            issuer: self.backend.stats(),
            hits: self.hits,
            idle_rounds: self.idle_rounds,
            overtime: self.overtime,
            hung: self.hung,
            recovery: Percentiles::of(self.recoveries),
            speed: self.book.speeds().summary(),
        };
        drop(held);
        self.backend.shutdown().await;
        Ok(outcome)
    }

    /// Waits until the token that is in the store has expired, and returns when that was.
    async fn live_out(&self) -> anyhow::Result<SystemTime> {
        self.look().await;
        loop {
            let current = self.book.oracle().current();
            let expiry = current.context("nobody is logged in")?.expires_at;
            let left = expiry.saturating_sub(now());
            if left == 0 {
                return Ok(SystemTime::now());
            }
            sleep(Duration::from_millis(left)).await;
        }
    }

    /// Whoever watches the store may be late on a busy machine.
    async fn look(&self) {
        let stored = timeout(PATIENCE, self.store.tokens()).await;
        let stored = stored.ok().and_then(Result::ok).flatten();
        if let Some(refresh) = stored.as_ref().and_then(TokenSet::refresh_token) {
            let refresh = Fingerprint::of(refresh.expose());
            self.book.oracle().stored(refresh);
        }
    }

    async fn hear(&mut self, heard: Heard, round: &mut Round) -> anyhow::Result<()> {
        let Heard {
            place,
            process,
            report,
        } = heard;
        // What one says before it is killed counts for none that comes after it.
        if self.members[place].process != process {
            return Ok(());
        }
        match report {
            Some(Report::Recovered { at }) => {
                let at = SystemTime::UNIX_EPOCH + Duration::from_micros(at);
                let time = at.duration_since(round.begun).unwrap_or_default();
                if std::mem::take(&mut round.missing[place]) {
                    round.times.push(time);
                }
                let took = words::time(time);
                if time > REMARKABLE {
                    self.view.remark(&format!("process {process} took {took}"));
                }
                self.view.say(process, took);
            }
            Some(Report::Ended) if self.book.oracle().is_over() => {
                self.view.say(process, "logs in");
                self.log_in().await?;
            }
            Some(Report::Failed { why }) => round.errors[place] = Some(why),
            Some(_) => {}
            None => {
                let member = self.start_member(place)?;
                self.view.say(member.process, "has just been started");
                member.begin(round.halts);
                self.members[place] = member;
                round.missing[place] = true;
                round.errors[place] = None;
            }
        }
        Ok(())
    }

    /// Those that have not gone on are hung, and others take their places.
    fn give_up(&mut self, number: u32, round: &Round) -> anyhow::Result<()> {
        for (place, is_missing) in round.missing.iter().enumerate() {
            if !is_missing {
                continue;
            }
            self.hung += 1;
            let process = self.members[place].process;
            let why = round.errors[place].as_ref();
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            self.view
                .remark(&format!("round {number}: process {process} hangs{why}"));
            self.trap.strike(process, Blow::Kill, "");
            self.members[place] = self.start_member(place)?;
        }
        Ok(())
    }

    fn start_member(&mut self, place: usize) -> anyhow::Result<Member> {
        let member = self.nursery.start(place)?;
        self.view.place(member.process, place);
        Ok(member)
    }

    /// As the user of yet another process would.
    async fn log_in(&self) -> anyhow::Result<()> {
        let http: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let user = self.backend.user();
        let credentials = json!({ "email": user.email, "password": user.password });
        let request = Request::post(format!("{}/member/login", self.backend.base()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(credentials.to_string()))?;
        let answer = http.request(request).await?;
        ensure!(answer.status().is_success(), "the login was refused");
        let body = answer.into_body().collect().await?.to_bytes();
        let grant: Grant = serde_json::from_slice(&body)?;
        let pair = grant.pair();
        let tokens = grant.tokens()?.with_identity("id", user.id.clone());
        let tokens = tokens.with_identity("email", user.email.clone());
        self.save(&tokens).await?;
        self.book.oracle().login(pair, now());
        Ok(())
    }

    async fn save(&self, tokens: &TokenSet) -> anyhow::Result<()> {
        let saved = timeout(PATIENCE, self.store.log_in(tokens)).await;
        let saved = saved.context("the store does not answer")?;
        saved.map_err(anyhow::Error::from_boxed)
    }

    fn tell(&self, number: u32, hits: &[String]) {
        let mut oracle = self.book.oracle();
        let remarks = oracle.remarks();
        let hits = hits.iter().filter(|_| !remarks.is_empty());
        for remark in hits.chain(&remarks) {
            self.view.remark(&format!("round {number}: {remark}"));
        }
        let counts = oracle.counts();
        self.view.round(format!(
            "{} expiries, {} reissues, {} used twice",
            counts.expiries, counts.reissues, counts.reused
        ));
    }
}
