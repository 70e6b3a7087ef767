//! A host with a runtime: a web service on tokio and axum that runs jobs, streams their output to
//! any number of clients, and has a page to watch them in a browser.
//!
//! ```sh
//! cargo run --release --features bytes,futures-io,serde --example host_tokio -- \
//!     --listen 127.0.0.1:8080
//! ```
//!
//! Open <http://127.0.0.1:8080/>, or use another shell:
//!
//! ```sh
//! curl --json '{"program": "seq", "args": ["5"], "time_limit": 60}' http://127.0.0.1:8080/jobs
//! curl -N http://127.0.0.1:8080/jobs/ID/log
//! ```
//!
//! # The service
//!
//! | request | what it does |
//! |---|---|
//! | `GET /` | the page: all jobs, the live output of one, and what it uses and stalls for |
//! | `POST /jobs` | starts the job that the JSON in the body describes, see `Request` |
//! | `GET /jobs` | lists all jobs as JSON, the oldest first |
//! | `GET /jobs/ID` | tells of one job what it uses and stalls for as well |
//! | `GET /jobs/ID/log` | the output as chunked text, until the job is finished |
//! | `GET /jobs/ID/events` | the output and what happens to the job as server-sent events |
//! | `POST /jobs/ID/stop` | stops a job |
//!
//! The output begins with its first byte, with that at `?offset=N`, or with the last lines, by
//! `?last=N`. The text goes on behind a truncation of the log. These are the events:
//!
//! | event | data | id |
//! |---|---|---|
//! | `message` | a line as `text`, and whether it is `complete` | where the next one begins |
//! | `truncated` | the job has truncated its log, and new output follows | `0` |
//! | `pressure` | the `resource` that the job has stalled for | |
//! | `oom` | how many processes were killed because memory ran out, as `kills` | |
//! | `missed` | how many of these events the client was too slow for, as `count` | |
//! | `exited` | how the main process has ended; it may come again in the next connection | |
//! | `finished` | that was all; the same, and `output_bytes` | `finished` |
//!
//! A line that is longer than 16 KiB comes in parts, of which only the last is complete.
//!
//! A browser whose connection breaks sends the id of the last event as `Last-Event-ID`, so an
//! `EventSource` goes on by itself exactly where it was, and is told to stop when it was at the
//! end.
//! An offset says nothing of truncations: a client that was away during one goes on at its offset
//! in what the log is now.
//!
//! # What to look at
//! * **The glue is two streams.** `log` makes a body of shared bytes, without a copy, and `events`
//!   one of lines; everything else is axum's.
//! * **No client costs more than its connection.** The next piece of a log is taken when the
//!   connection has room for it. What a slow client has not read is in the log, which is a file.
//!   When a client leaves, its streams are dropped, and that is all.
//! * **What may block is done in `spawn_blocking`:** to start a job, to ask the worker about every
//!   job there is, and to shut it down. Other calls take one turn of its loop.
//! * **A client that leaves while it starts a job** leaves a job that everybody can see.
//!
//! # Who can reach it
//! The service runs programs, as its own user, for whoever can connect: it has no authentication,
//! and listens on 127.0.0.1 unless it is told otherwise. Pages of other sites that are open in a
//! browser on this machine can connect too, but start nothing: a browser asks before it sends them
//! JSON, and a host name that such a site has made point here is refused by `check_host`.

use std::future::{poll_fn, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use clap::Parser;
use futures::channel::oneshot;
use futures::future::join_all;
use futures::{FutureExt, StreamExt, stream};
use jobworker::worker::{Job, JobEvent, Line, Output, Shutdown};
use jobworker::{
    ByteSize, Command, Error, Exit, JobId, Limits, Position, Stall, Stallable, TailError, Worker,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::place::PlaceFlags;
use crate::seconds::seconds;

#[path = "common/place.rs"]
mod place;
#[path = "common/seconds.rs"]
mod seconds;
#[path = "common/signals.rs"]
mod signals;
#[path = "common/words.rs"]
mod words;

/// Runs jobs for clients that speak HTTP, and streams their output; with a page for browsers.
///
/// Prints the address that it listens on. SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every job, and
/// then the service; a second signal kills the jobs.
#[derive(Parser)]
#[command(name = "host_tokio")]
struct Options {
    /// Address to listen on. Whoever can connect can run programs.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many finished jobs are kept when a new one is started.
    #[arg(long, value_name = "N", default_value = "100")]
    keep: usize,
    /// Time between the stop signal and the kill of a job.
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "10")]
    grace: Duration,
    #[command(flatten)]
    place: PlaceFlags,
}

/// The longest line in one event.
const LINE: usize = 16 * 1024;

/// The id of the last event.
const FINISHED: &str = "finished";

/// How long clients have, at the end, to take what is left.
const LINGER: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Handled before anything is created, so that no signal can leave anything behind.
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let worker = Worker::with_config(&options.place.config()).map_err(words::spoken)?;
    let host = Arc::new(Host {
        worker: worker.clone(),
        entries: Mutex::default(),
        keep: options.keep,
        grace: options.grace,
    });
    println!("listening on http://{}", listener.local_addr()?);
    // A line is sent when it is there, not when there are more. If the client is gone already, its
    // socket will say so.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let (end, ended) = oneshot::channel::<()>();
    let service =
        axum::serve(listener, routes(Arc::clone(&host))).with_graceful_shutdown(ended.map(drop));
    let service = tokio::spawn(service.into_future());

    signals.next().await;
    // No client is accepted any more. Those that follow a job have its output to the end.
    drop(end);
    host.stop(&mut signals).await;
    // What a client has not taken by then is lost to it.
    let _ = tokio::time::timeout(LINGER, service).await;
    // Whatever was started meanwhile is killed. Nothing is left then, whoever has a handle.
    spawn_blocking(move || worker.shutdown(Shutdown::Kill, Duration::from_secs(10))).await??;
    Ok(())
}

fn routes(host: Arc<Host>) -> Router {
    Router::new()
        .route("/", get(Html(include_str!("host_tokio.html"))))
        .route("/jobs", get(list).post(start))
        .route("/jobs/{id}", get(show))
        .route("/jobs/{id}/log", get(log))
        .route("/jobs/{id}/events", get(events))
        .route("/jobs/{id}/stop", post(stop))
        .layer(middleware::from_fn(check_host))
        .with_state(host)
}

struct Host {
    worker: Worker,
    /// The oldest first. A job is kept, with its log, as long as it is in here.
    entries: Mutex<Vec<Entry>>,
    keep: usize,
    grace: Duration,
}

#[derive(Clone)]
struct Entry {
    job: Job,
    command: String,
}

/// What a client wants to run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    program: String,
    #[serde(default)]
    args: Vec<String>,
    /// In bytes, or a text such as `64M`.
    memory_max: Option<ByteSize>,
    /// In seconds.
    time_limit: Option<f64>,
}

impl Host {
    /// Starts a job. Blocks.
    fn start(&self, request: Request) -> Result<Value, Failure> {
        let mut command = Command::new(request.program);
        command.args(request.args).inherit_env().grace(self.grace).accounting(true);
        if let Some(size) = request.memory_max {
            command.limits(Limits::new().memory_max(size));
        }
        if let Some(limit) = request.time_limit {
            let limit = Duration::try_from_secs_f64(limit)
                .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
            command.time_limit(limit);
        }
        let job = self.worker.spawn(&command)?;
        for resource in [Stallable::Cpu, Stallable::Memory] {
            // Not every system has pressure stall information. The window is one that every user
            // may ask for. Each watch holds a descriptor until the job is finished.
            let stall = Stall::some(Duration::from_millis(300), Duration::from_secs(2));
            let _ = job.watch_pressure(resource, stall);
        }
        let entry = Entry { job, command: command.to_string() };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = entries.iter().filter(|entry| entry.job.report().is_some()).count();
        let mut surplus = finished.saturating_sub(self.keep);
        entries.retain(|entry| {
            let forget = surplus > 0 && entry.job.report().is_some();
            surplus -= usize::from(forget);
            !forget
        });
        entries.push(entry.clone());
        drop(entries);
        entry.describe()
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, id: JobId) -> Result<Entry, Failure> {
        let found = self.entries().into_iter().find(|entry| entry.job.id() == id);
        found.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "no such job".to_owned()))
    }

    /// Stops every job, and waits until all are finished. The next signal kills them.
    async fn stop(&self, signals: &mut Signals) {
        let entries = self.entries();
        // A failure to stop a job is in its report.
        entries.iter().for_each(|entry| drop(entry.job.stop()));
        let mut finished = pin!(join_all(entries.iter().map(|entry| entry.job.finished())));
        tokio::select! {
            _ = &mut finished => {}
            () = signals.next() => {
                entries.iter().for_each(|entry| drop(entry.job.kill()));
                finished.await;
            }
        }
    }
}

impl Entry {
    /// The job for a client. Blocks for one turn of the worker's loop.
    fn describe(&self) -> Result<Value, Failure> {
        let status = self.job.status()?;
        Ok(json!({
            "id": self.job.id(),
            "command": self.command,
            "exit": status.exit.map(|exit| exit.to_string()),
            "status": status,
        }))
    }
}

async fn start(
    State(host): State<Arc<Host>>,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let started = spawn_blocking(move || host.start(request)).await??;
    Ok((StatusCode::CREATED, Json(started)))
}

async fn list(State(host): State<Arc<Host>>) -> Result<Json<Vec<Value>>, Failure> {
    let describe = move || host.entries().iter().map(Entry::describe).collect();
    Ok(Json(spawn_blocking::<_, Result<_, _>>(describe).await??))
}

async fn show(
    State(host): State<Arc<Host>>,
    Path(id): Path<JobId>,
) -> Result<Json<Value>, Failure> {
    let entry = host.find(id)?;
    let mut shown = entry.describe()?;
    // Without a cgroup there are none.
    shown["stats"] = json!(entry.job.stats().ok());
    Ok(Json(shown))
}

async fn stop(State(host): State<Arc<Host>>, Path(id): Path<JobId>) -> Result<StatusCode, Failure> {
    host.find(id)?.job.stop()?;
    Ok(StatusCode::ACCEPTED)
}

/// Where the output is to begin.
#[derive(Deserialize)]
struct Start {
    offset: Option<u64>,
    last: Option<u64>,
}

impl Start {
    fn position(&self) -> Position {
        match (self.offset, self.last) {
            (Some(offset), _) => Position::Offset(offset),
            (None, Some(lines)) => Position::LastLines(lines),
            (None, None) => Position::Start,
        }
    }
}

/// The output of a job as text.
async fn log(
    State(host): State<Arc<Host>>,
    Path(id): Path<JobId>,
    Query(from): Query<Start>,
) -> Result<Response, Failure> {
    let output = host.find(id)?.job.output(from.position())?;
    let chunks = output
        .chunks()
        .filter(|chunk| ready(!matches!(chunk, Err(error) if Output::is_truncation(error))));
    // Without the second header, a browser waits for more before it shows anything.
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// The output of a job, and what happens to it, as server-sent events.
async fn events(
    State(host): State<Arc<Host>>,
    Path(id): Path<JobId>,
    Query(from): Query<Start>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let job = host.find(id)?.job;
    let position = match headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default()) {
        None => from.position(),
        // By this answer an `EventSource` learns not to come back.
        Some(FINISHED) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Some(id) => Position::Offset(id.parse().map_err(|_| {
            Failure(StatusCode::BAD_REQUEST, "Last-Event-ID is not the id of an event".to_owned())
        })?),
    };
    let finished = job.finished().map(|end| {
        end.map(|report| {
            let data = with_exit(report.exit, json!({ "output_bytes": report.output_bytes }));
            event(FINISHED, &data).id(FINISHED)
        })
    });
    let happened =
        job.events().filter_map(|next| ready(next.map(|next| happened(&next)).transpose()));
    let mut lines = job.output(position)?.lines(LINE);
    let lines = stream::poll_fn(move |cx| {
        let next = ready!(lines.poll_next(cx));
        Poll::Ready(next.map(|line| printed(line, lines.offset())))
    });
    // The lines end when the job is finished, and so does what happens to it: the end comes last.
    let all = stream::select(lines, happened).chain(stream::once(finished));
    Ok(Sse::new(all).keep_alive(KeepAlive::default()).into_response())
}

fn printed(line: jobworker::Result<Line>, next: u64) -> jobworker::Result<Event> {
    let event = match line {
        Ok(line) => {
            let data = json!({ "text": line.text(), "complete": line.is_complete() });
            Event::default().data(data.to_string())
        }
        Err(Error::Tail(TailError::Truncated)) => event("truncated", &json!({})),
        Err(Error::Tail(TailError::Skipped { bytes, .. })) => {
            event("skipped", &json!({ "bytes": bytes }))
        }
        Err(error) => return Err(error),
    };
    Ok(event.id(next.to_string()))
}

fn happened(next: &JobEvent) -> Option<Event> {
    Some(match next {
        JobEvent::Exited(exit) => event("exited", &with_exit(*exit, json!({}))),
        JobEvent::Pressure(resource) => {
            event("pressure", &json!({ "resource": resource.to_string() }))
        }
        JobEvent::Oom { kills, .. } => event("oom", &json!({ "kills": kills })),
        JobEvent::Missed(count) => event("missed", &json!({ "count": count })),
        _ => return None,
    })
}

fn with_exit(exit: Exit, mut data: Value) -> Value {
    data["exit"] = json!(exit.to_string());
    data["code"] = json!(exit.shell_code());
    data
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// Refuses a request to a host that is a name other than `localhost`. To a browser, a page of
/// another site would belong to this service if that site made its name point here.
async fn check_host(request: axum::extract::Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let known = host.is_some_and(|host| {
        let name = host.host();
        name.eq_ignore_ascii_case("localhost")
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    });
    if known {
        next.run(request).await
    } else {
        Failure(StatusCode::FORBIDDEN, "use the address of the service".to_owned()).into_response()
    }
}

/// An error, for the client.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if error.is_about_command() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self(status, words::of(&error))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// The signals that ask the service to end.
struct Signals(Vec<Signal>);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let numbers = signals::to_handle()?.into_iter();
        let signals = numbers.map(|number| signal(SignalKind::from_raw(number)));
        Ok(Self(signals.collect::<Result<_, _>>()?))
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        poll_fn(|cx| {
            let mut all = self.0.iter_mut();
            if all.any(|signal| signal.poll_recv(cx).is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
