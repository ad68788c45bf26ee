//! The task that keeps the appointments: whom to probe, when, and how many at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::model::plan::ProbePlan;
use crate::runtime::cluster::{Attention, Cluster, Outcome, Vitals};
use crate::runtime::probing::probe::probe;
use crate::runtime::probing::wheel::{TICK, Wheel};

/// Probes under way at once in all, whatever the clusters allow; they need a socket each.
const PROBES_MAX: usize = 1024;

/// Runs until its runtime ends.
pub(super) async fn run(attention: Arc<Attention>) {
    let mut prober = Prober::new(Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            calls = attention.calls() => {
                for (id, cluster) in calls.clusters {
                    prober.look_at(id, &cluster, Instant::now());
                }
                for vitals in calls.changed {
                    prober.reschedule(vitals.cluster(), vitals, Instant::now());
                }
            }
            Some(ended) = prober.running.join_next_with_id(), if !prober.running.is_empty() => {
                prober.end(ended, Instant::now());
            }
            _ = ticks.tick(), if !prober.wheel.is_empty() => {
                let now = Instant::now();
                for job in prober.wheel.due(now) {
                    prober.begin(job, now);
                }
            }
        }
    }
}

struct Prober {
    watched: AHashMap<Uuid, Watched>,
    wheel: Wheel<Job>,
    running: JoinSet<Option<Outcome>>,
    /// What is running, with its start.
    jobs: AHashMap<Id, (Job, Instant)>,
}

/// A cluster whose addresses are probed.
struct Watched {
    cluster: Weak<Cluster>,
    under_way: usize,
    /// Those that are due while as many as allowed are under way.
    waiting: VecDeque<Job>,
}

/// An appointment. It lapses when the address gets a newer one.
struct Job {
    cluster: Uuid,
    vitals: Arc<Vitals>,
    number: u32,
}

impl Prober {
    fn new(now: Instant) -> Self {
        Self {
            watched: AHashMap::new(),
            wheel: Wheel::new(now),
            running: JoinSet::new(),
            jobs: AHashMap::new(),
        }
    }

    /// A cluster is new, or has changed its plan or addresses.
    fn look_at(&mut self, id: Uuid, cluster: &Weak<Cluster>, now: Instant) {
        let Some(present) = cluster.upgrade() else {
            return;
        };
        let Some(plan) = &present.plan.health.probe else {
            // Appointments lapse when they are due.
            return self.forget(id);
        };
        let watched = self.watched.entry(id).or_insert_with(|| Watched {
            cluster: Weak::clone(cluster),
            under_way: 0,
            waiting: VecDeque::new(),
        });
        watched.cluster = Weak::clone(cluster);
        for address in present.addresses() {
            if address.vitals.claim_probing() {
                // Spread over the interval, so that not all come due together for ever.
                let wait = pause(plan, &address.vitals).mul_f64(rand::random::<f64>());
                self.appoint(id, address.vitals, now + wait);
            }
        }
    }

    fn forget(&mut self, id: Uuid) {
        if let Some(watched) = self.watched.remove(&id) {
            for job in watched.waiting {
                job.vitals.release_probing();
            }
        }
    }

    /// The health of an address has changed: from now on the other interval counts.
    fn reschedule(&mut self, id: Uuid, vitals: Arc<Vitals>, now: Instant) {
        let watched = self.watched.get(&id);
        let cluster = watched.and_then(|watched| watched.cluster.upgrade());
        if let Some(cluster) = cluster
            && let Some(plan) = &cluster.plan.health.probe
            && vitals.is_probed()
        {
            let due = now + pause(plan, &vitals);
            self.appoint(id, vitals, due);
        }
    }

    fn appoint(&mut self, cluster: Uuid, vitals: Arc<Vitals>, due: Instant) {
        let number = vitals.next_appointment();
        let job = Job {
            cluster,
            vitals,
            number,
        };
        self.wheel.insert(due, job);
    }

    /// An appointment is due.
    fn begin(&mut self, job: Job, now: Instant) {
        if !job.is_current() {
            return;
        }
        let Some(watched) = self.watched.get_mut(&job.cluster) else {
            return job.vitals.release_probing();
        };
        let Some(cluster) = watched.cluster.upgrade() else {
            self.forget(job.cluster);
            return job.vitals.release_probing();
        };
        let Some(plan) = &cluster.plan.health.probe else {
            return job.vitals.release_probing();
        };
        if !job.vitals.is_present() {
            return job.vitals.release_probing();
        }
        if every(plan, job.vitals.is_healthy()).is_none() {
            // Not probed in this state; a change of state makes another appointment.
            let due = now + pause(plan, &job.vitals);
            return self.wheel.insert(due, job);
        }
        if watched.under_way >= plan.concurrency.max(1) as usize {
            return watched.waiting.push_back(job);
        }
        if self.running.len() >= PROBES_MAX {
            return self.wheel.insert(now + TICK, job);
        }
        watched.under_way += 1;
        let vitals = Arc::clone(&job.vitals);
        let handle = self
            .running
            .spawn(async move { probe(&cluster, &vitals).await });
        self.jobs.insert(handle.id(), (job, now));
    }

    /// A probe has ended.
    fn end(&mut self, ended: Result<(Id, Option<Outcome>), JoinError>, now: Instant) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            // It panicked, which says nothing of the address.
            Err(error) => (error.id(), None),
        };
        let Some((job, began)) = self.jobs.remove(&id) else {
            return;
        };
        let Some(watched) = self.watched.get_mut(&job.cluster) else {
            return job.vitals.release_probing();
        };
        watched.under_way = watched.under_way.saturating_sub(1);
        let next = watched.waiting.pop_front();
        if let Some(cluster) = watched.cluster.upgrade() {
            if let Some(outcome) = outcome {
                cluster.probed(&job.vitals, outcome);
            }
            if let Some(plan) = &cluster.plan.health.probe
                && job.is_current()
            {
                let due = (began + pause(plan, &job.vitals)).max(now);
                self.wheel.insert(due, job);
            }
        }
        if let Some(next) = next {
            self.begin(next, now);
        }
    }
}

impl Job {
    fn is_current(&self) -> bool {
        self.vitals.is_appointment(self.number)
    }
}

/// The interval in this state.
fn every(plan: &ProbePlan, healthy: bool) -> Option<Duration> {
    let every = match healthy {
        true => plan.healthy_every_ms,
        false => plan.unhealthy_every_ms,
    };
    every.map(|every| Duration::from_millis(u64::from(every)))
}

/// Time to the next appointment: the interval of its state, or the other one's when this state is not probed.
fn pause(plan: &ProbePlan, vitals: &Vitals) -> Duration {
    let healthy = vitals.is_healthy();
    every(plan, healthy)
        .or_else(|| every(plan, !healthy))
        .unwrap_or(Duration::from_secs(1))
        .max(TICK)
}
