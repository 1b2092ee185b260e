//! The rounds: a login, the storm itself, and what the server counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, sleep_until, timeout, timeout_at},
};
use tower_token_refresh::{RefreshError, Session, TokenSet};

use crate::{
    afterwards::{Afterwards, Looker},
    backend::{self, Backend, Config, ReissueMode, Stats, User},
    client::{Client, End},
    connections::Http,
    options::{Options, Scenario},
    terminal::Progress,
    trace::{Life, Reissue, Reissues, Seen},
};

/// As long as an issuer may take that is not on the same machine.
const REISSUE_DELAY: Duration = Duration::from_millis(20);
const LATE_SPREAD: Duration = Duration::from_millis(200);
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// For what a scenario waits for in the middle of it: on a machine that is too slow for it, it goes on
/// without.
const PATIENCE: Duration = Duration::from_secs(2);

/// The back end, the client, and all that lives longer than a round.
pub struct Storm {
    options: Options,
    backend: Backend,
    second_user: User,
    client: Client,
    reissues: Reissues,
    progress: Progress,
}

/// All that was seen of one round.
pub struct Round {
    pub begun: Instant,
    pub wall: Duration,
    pub lives: Vec<Life>,
    /// `None`: it had not settled at the deadline.
    pub ends: Vec<Option<End>>,
    /// The first item asked for; the others follow.
    pub first_item: u64,
    pub reissues: Vec<Reissue>,
    pub presented: u64,
    pub needless: u64,
    /// `None`: there was no use in looking.
    pub afterwards: Option<Afterwards>,
    pub server: Stats,
    pub replays: u64,
    pub late_rejections: u64,
    /// How often the session ended, as it counts …
    pub ends_counted: u64,
    /// … and as it told its subscribers.
    pub ends_told: u64,
    pub users: Users,
}

/// Who may be the owner of what is answered.
#[derive(Clone, Default)]
pub struct Users {
    pub first: String,
    /// Who has logged in meanwhile: in `logout` only.
    pub second: Option<String>,
    pub logout: Option<Instant>,
    /// Just before that login.
    pub login_began: Option<Instant>,
    /// Just after it.
    pub login_done: Option<Instant>,
}

impl Storm {
    pub async fn prepare(options: &Options) -> anyhow::Result<Self> {
        let backend = Backend::start(Config {
            access_ttl: TOKEN_LIFE,
            reissue_delay: REISSUE_DELAY,
            reissue_mode: match options.scenario {
                Scenario::Fails => ReissueMode::Fail,
                Scenario::Dead => ReissueMode::Dead,
                _ => ReissueMode::Ok,
            },
            rotate: !options.no_rotate,
            ..Config::default()
        })
        .await?;
        let second_user = backend.add_user("second@example.com", "second").await?;
        // The server holds its rejections until all requests are there: none may wait for a connection.
        let at_once = matches!(options.scenario, Scenario::Expired | Scenario::Late);
        let http = Http::new(options.requests(), at_once);
        if http.scarce {
            let how = http.describe();
            eprintln!("there can't be a connection for each request: {how}");
        }
        let reissues = Reissues::default();
        Ok(Self {
            client: Client::new(&backend.base(), http, reissues.clone())?,
            options: options.clone(),
            backend,
            second_user,
            reissues,
            progress: Progress::new(
                u64::from(options.requests) * u64::from(options.rounds),
                "requests settled",
            ),
        })
    }

    pub async fn round(&self, number: u32) -> anyhow::Result<Round> {
        let n = self.options.requests();
        let session = &self.client.session;
        let second = self.log_in().await?;
        let watch = EndWatch::new(session);
        let before = session.stats();
        self.set_up();
        let began = tokio::time::Instant::now();
        let deadline = began + self.options.deadline;
        let mut wave = Wave::new(self, number);
        // Whatever the storm does not reach by then is hung, and dropped.
        let in_time = timeout_at(deadline, self.storm(&mut wave, number, second)).await;
        wave.calls.shutdown().await;
        in_time.unwrap_or(Ok(()))?;
        self.reissues.open_door();
        let wall = wave.begun.elapsed();
        self.calm_down(before.reissues).await;
        self.backend.set_round(None);
        let after = session.stats();
        let ends_counted = after.ends - before.ends;
        let ends_told = watch.told(ends_counted).await;
        let server = self.backend.stats();
        let Seen {
            reissues,
            presented,
            needless,
        } = self.reissues.take();
        let afterwards = match wave.ends.iter().all(Option::is_some) {
            true => Some(self.look_afterwards(&wave.users, began).await?),
            false => None,
        };
        Ok(Round {
            begun: wave.begun,
            wall,
            first_item: u64::from(number) * n as u64,
            reissues,
            presented,
            needless,
            afterwards,
            server,
            replays: after.replays - before.replays,
            late_rejections: after.late_rejections - before.late_rejections,
            ends_counted,
            ends_told,
            lives: wave.lives,
            ends: wave.ends,
            users: wave.users,
        })
    }

    async fn look_afterwards(
        &self,
        users: &Users,
        began: tokio::time::Instant,
    ) -> anyhow::Result<Afterwards> {
        self.backend.reset_stats();
        let looker = Looker {
            backend: &self.backend,
            client: &self.client,
            scenario: self.options.scenario,
            user: users.second.as_ref().unwrap_or(&users.first),
            requests: self.options.requests.into(),
            began,
        };
        looker.look().await
    }

    /// Lets the server go, and with it everything that is still under way.
    pub async fn finish(self) {
        drop(self.progress);
        self.backend.shutdown().await;
    }

    pub fn connections(&self) -> &str {
        self.client.connections()
    }

    /// The first user is logged in, with a token that has expired where that is the matter. Returns
    /// what the second is to log in with.
    async fn log_in(&self) -> anyhow::Result<TokenSet> {
        let first = self.client.tokens_of(self.backend.user()).await?;
        self.client.session.login(first).await?;
        if self.options.scenario != Scenario::Steady {
            self.backend.expire_access_tokens();
        }
        // At hand, so that the other login can come in the very moment of the logout.
        self.client.tokens_of(&self.second_user).await
    }

    fn set_up(&self) {
        let spread = match self.options.scenario {
            Scenario::Expired => Some(Duration::ZERO),
            Scenario::Late => Some(LATE_SPREAD),
            _ => None,
        };
        self.backend.set_round(spread.map(|spread| backend::Round {
            requests: self.options.requests(),
            hold_rejections: true,
            spread,
        }));
        if self.options.scenario == Scenario::Flaky {
            self.backend.fail_two_reissues();
        }
        self.reissues.open_door();
        self.reissues.take();
        self.backend.reset_stats();
    }

    async fn storm(&self, wave: &mut Wave, number: u32, second: TokenSet) -> anyhow::Result<()> {
        let mut rng = Rng::with_seed(self.options.seed.wrapping_add(number.into()));
        let n = wave.ends.len();
        match self.options.scenario {
            Scenario::Cancel => wave.send(n, &patiences(n, &mut rng)),
            Scenario::Logout => self.change_users(wave, number, &mut rng, second).await?,
            _ => wave.send(n, &[]),
        }
        wave.settle(&self.progress).await;
        Ok(())
    }

    /// Half of the requests are sent before the logout, some while nobody is logged in, and the rest
    /// when the second user is.
    async fn change_users(
        &self,
        wave: &mut Wave,
        number: u32,
        rng: &mut Rng,
        second: TokenSet,
    ) -> Result<(), RefreshError> {
        let n = wave.ends.len();
        let first = n.div_ceil(2);
        match Moment::of(self.options.seed.wrapping_add(number.into())) {
            Moment::NewToken => self.meet_at_door(wave, first).await,
            Moment::Random => {
                wave.send(first, &[]);
                sleep(moment(n, rng)).await;
            }
            Moment::UnderWay => {
                wave.send(first, &[]);
                self.reissues.one_has_begun(PATIENCE).await;
            }
        }
        wave.users.logout = Some(Instant::now());
        self.client.session.logout().await?;
        wave.send(n / 6, &[]);
        // Sometimes none at all.
        sleep(Duration::from_micros(rng.u64(0..3000).saturating_sub(1000))).await;
        wave.users.second = Some(self.second_user.id.clone());
        wave.users.login_began = Some(Instant::now());
        self.client.session.login(second).await?;
        wave.users.login_done = Some(Instant::now());
        self.reissues.open_door();
        wave.send(n, &[]);
        Ok(())
    }

    /// Half of these are rejected, and the others come when the reissue is under way and wait to be sent. When
    /// the new token is there, every other one of them finds a service that is not ready, and so none of those
    /// has been sent when the first user logs out.
    async fn meet_at_door(&self, wave: &mut Wave, requests: usize) {
        self.reissues.close_door();
        wave.at_door = Some(0);
        wave.send(requests.div_ceil(2), &[]);
        self.reissues.one_has_begun(PATIENCE).await;
        wave.send(requests / 2, &[]);
        let at_door = wave.at_door.take().unwrap_or_default();
        self.reissues.are_at_door(at_door, PATIENCE).await;
    }

    /// Callers that leave may leave work behind. It belongs to this round, so wait until nothing more
    /// arrives at the server.
    async fn calm_down(&self, reissues_before: u64) {
        let patience = Instant::now() + Duration::from_secs(2);
        let left_early = matches!(self.options.scenario, Scenario::Cancel | Scenario::Logout);
        let mut quiet = if left_early { 0 } else { 2 };
        let mut seen = self.backend.stats();
        while quiet < 3 && Instant::now() < patience {
            sleep(Duration::from_millis(10)).await;
            let now = self.backend.stats();
            let sent = self.client.session.stats().reissues - reissues_before;
            let is_quiet = now == seen && now.reissues >= sent;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            seen = now;
        }
    }
}

/// When the first user logs out: in turns, as each finds another mistake.
enum Moment {
    /// When the new token is there, and some of those who waited for it are not sent yet.
    NewToken,
    Random,
    /// When the reissue is under way.
    UnderWay,
}

impl Moment {
    fn of(number: u64) -> Self {
        match number % 3 {
            0 => Self::UnderWay,
            1 => Self::Random,
            _ => Self::NewToken,
        }
    }
}

/// The requests of one round.
struct Wave {
    options: Options,
    client: Client,
    /// How many were sent through the door, while every other one is.
    at_door: Option<usize>,
    begun: Instant,
    first_item: u64,
    calls: JoinSet<(usize, End)>,
    lives: Vec<Life>,
    ends: Vec<Option<End>>,
    sent: usize,
    users: Users,
}

impl Wave {
    fn new(storm: &Storm, number: u32) -> Self {
        let n = storm.options.requests();
        Self {
            options: storm.options.clone(),
            client: storm.client.clone(),
            at_door: None,
            begun: Instant::now(),
            first_item: u64::from(number) * n as u64,
            calls: JoinSet::new(),
            lives: (0..n).map(|_| Life::default()).collect(),
            ends: (0..n).map(|_| None).collect(),
            sent: 0,
            users: Users {
                first: storm.backend.user().id.clone(),
                ..Users::default()
            },
        }
    }

    /// Sends the next `most`, or as many as are left. Those with a patience drop their request then.
    fn send(&mut self, most: usize, patiences: &[Option<Duration>]) {
        let end = self.lives.len().min(self.sent + most);
        for index in self.sent..end {
            let life = self.lives[index].clone();
            let item = self.first_item + index as u64;
            let client = self.client_of(index);
            let ask = self.options.ask(item);
            let is_patient = self.options.scenario == Scenario::Flaky;
            let patience = patiences.get(index).copied().flatten();
            self.calls.spawn(async move {
                if is_patient {
                    return (index, client.call_patiently(ask, life).await);
                }
                let call = client.call(ask, life.clone());
                let Some(patience) = patience else {
                    return (index, call.await);
                };
                let end = timeout(patience, call).await.unwrap_or(End::Dropped);
                life.settled();
                (index, end)
            });
        }
        self.sent = end;
    }

    fn client_of(&mut self, index: usize) -> Client {
        match &mut self.at_door {
            Some(at_door) if index.is_multiple_of(2) => {
                *at_door += 1;
                self.client.behind_door()
            }
            _ => self.client.clone(),
        }
    }

    async fn settle(&mut self, progress: &Progress) {
        while let Some(done) = self.calls.join_next().await {
            // A call that panics has not settled.
            if let Ok((index, end)) = done {
                self.ends[index] = Some(end);
            }
            progress.step();
        }
    }
}

/// How long each caller waits: a third of them, the first among them, for a random time. It is less
/// than a rejected request takes, as that one waits for the reissue.
fn patiences(n: usize, rng: &mut Rng) -> Vec<Option<Duration>> {
    let mut others: Vec<_> = (1..n).collect();
    rng.shuffle(&mut others);
    let mut patiences = vec![None; n];
    for index in std::iter::once(0).chain(others).take(n.div_ceil(3)) {
        patiences[index] = Some(REISSUE_DELAY.mul_f64(rng.f64()));
    }
    patiences
}

/// Some time between the beginning of a storm of this size and about its end.
fn moment(n: usize, rng: &mut Rng) -> Duration {
    let most = Duration::from_millis(30) + Duration::from_micros(60) * n as u32;
    most.mul_f64(rng.f64())
}

/// Counts how often subscribers are told that the session has ended.
struct EndWatch {
    told: Arc<AtomicU64>,
    task: AbortHandle,
}

impl EndWatch {
    fn new(session: &Session) -> Self {
        let told = Arc::new(AtomicU64::new(0));
        let mut status = session.subscribe();
        let counter = told.clone();
        let task = tokio::spawn(async move {
            while status.changed().await.is_ok() {
                if status.borrow_and_update().end_reason().is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self {
            told,
            task: task.abort_handle(),
        }
    }

    /// How often by now; those that are expected get a moment to arrive.
    async fn told(self, expected: u64) -> u64 {
        let patience = tokio::time::Instant::now() + Duration::from_secs(1);
        while self.told.load(Ordering::SeqCst) < expected {
            let soon = tokio::time::Instant::now() + Duration::from_millis(1);
            if soon > patience {
                break;
            }
            sleep_until(soon).await;
        }
        self.task.abort();
        self.told.load(Ordering::SeqCst)
    }
}
