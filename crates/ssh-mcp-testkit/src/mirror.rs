//! A mirror that plays what a test wrote for it.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    port::{
        BoxFuture,
        fs::RemoteFs,
        mirror::{Broken, BrokenKind, Done, Job, Mirror, News, NewsDesk},
        ssh::Channel,
    },
    sync::Mutex,
};
use tokio::sync::watch;

/// The mirror; clones are the same one. Without a play a run finds nothing to do.
#[derive(Clone)]
pub struct ScriptedMirror {
    state: Arc<Mutex<State>>,
    gate: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    wire: Play,
    walk: Play,
    runs: Vec<Run>,
    under_way: usize,
}

/// A run that was asked for.
#[derive(Debug, Clone)]
pub struct Run {
    /// By rsync's protocol, and not over the file service.
    pub is_wire: bool,
    /// What was to be done.
    pub job: Job,
}

/// What happens in a run, read from left to right. Without an end it comes to its end.
#[derive(Clone, Default)]
pub struct Play {
    steps: Vec<Step>,
    is_deaf: bool,
}

type Teller = dyn Fn(&dyn NewsDesk) + Send + Sync;

#[derive(Clone)]
enum Step {
    Tell(Arc<Teller>),
    After(Duration),
    Gate,
    End(Result<Done, Broken>),
}

impl Play {
    /// Nothing happens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whatever the test tells.
    pub fn tell(mut self, news: impl Fn(&dyn NewsDesk) + Send + Sync + 'static) -> Self {
        self.steps.push(Step::Tell(Arc::new(news)));
        self
    }

    /// The list is complete.
    pub fn planned(self, files: u64, bytes: u64) -> Self {
        self.tell(move |desk| desk.tell(News::Planned { files, bytes }))
    }

    /// A file is there, all of it moved.
    pub fn completed(self, path: &'static str, bytes: u64) -> Self {
        self.tell(move |desk| {
            desk.tell(News::Completed { path: path.as_bytes(), transferred: bytes, skipped: 0 });
        })
    }

    /// Lets time pass.
    pub fn after(mut self, time: Duration) -> Self {
        self.steps.push(Step::After(time));
        self
    }

    /// Waits until the test lets it go on.
    pub fn wait(mut self) -> Self {
        self.steps.push(Step::Gate);
        self
    }

    /// Ends with this.
    pub fn done(mut self, done: Done) -> Self {
        self.steps.push(Step::End(Ok(done)));
        self
    }

    /// Breaks.
    pub fn breaks(mut self, kind: BrokenKind, detail: &str, touched: bool) -> Self {
        self.steps.push(Step::End(Err(Broken { kind, detail: detail.to_owned(), touched })));
        self
    }

    /// It does not listen when it is to stop.
    pub fn deaf(mut self) -> Self {
        self.is_deaf = true;
        self
    }
}

impl Default for ScriptedMirror {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedMirror {
    /// A mirror that finds nothing to do.
    pub fn new() -> Self {
        Self { state: Arc::default(), gate: Arc::new(watch::Sender::new(false)) }
    }

    /// What a run by rsync's protocol is from now on.
    pub fn on_wire(&self, play: Play) {
        self.state.lock().wire = play;
    }

    /// What a run over the file service is from now on.
    pub fn on_walk(&self, play: Play) {
        self.state.lock().walk = play;
    }

    /// Every run that waits goes on, and none waits any more.
    pub fn go_on(&self) {
        self.gate.send_replace(true);
    }

    /// The runs that were asked for, in order.
    pub fn runs(&self) -> Vec<Run> {
        self.state.lock().runs.clone()
    }

    /// How many runs have not ended.
    pub fn under_way(&self) -> usize {
        self.state.lock().under_way
    }

    fn run<H: Send + 'static>(
        &self,
        run: Run,
        held: H,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>> {
        let mut state = self.state.lock();
        let play = if run.is_wire { state.wire.clone() } else { state.walk.clone() };
        state.runs.push(run);
        state.under_way += 1;
        let guard = Guard(Arc::clone(&self.state));
        let mut gate = self.gate.subscribe();
        Box::pin(async move {
            let (_held, _guard) = (held, guard);
            let stopped = Broken { kind: BrokenKind::Stopped, detail: "stopped".to_owned(), touched: true };
            let playing = async {
                for step in play.steps {
                    match step {
                        Step::Tell(tell) => tell(&*news),
                        Step::After(time) => tokio::time::sleep(time).await,
                        Step::Gate => _ = gate.wait_for(|open| *open).await,
                        Step::End(end) => return end,
                    }
                }
                Ok(Done::default())
            };
            if play.is_deaf {
                return playing.await;
            }
            tokio::select! {
                biased;
                () = stop => Err(stopped),
                end = playing => end,
            }
        })
    }
}

struct Guard(Arc<Mutex<State>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl Mirror for ScriptedMirror {
    fn wire(
        &self,
        channel: Channel,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>> {
        self.run(Run { is_wire: true, job }, channel, news, stop)
    }

    fn walk(
        &self,
        files: Arc<dyn RemoteFs>,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>> {
        self.run(Run { is_wire: false, job }, files, news, stop)
    }

    /// A pattern with an open bracket and no closed one makes no sense.
    fn check_patterns(&self, include: &[String], exclude: &[String]) -> Result<(), String> {
        let bad = |pattern: &&String| pattern.contains('[') && !pattern.contains(']');
        match include.iter().chain(exclude).find(bad) {
            Some(pattern) => Err(format!("{pattern}: a bracket is not closed")),
            None => Ok(()),
        }
    }
}
