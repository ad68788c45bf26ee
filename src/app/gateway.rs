//! The parts of an instance tied together: store, builder, linker, engine, Admin interface.
//!
//! ```text
//! store ─▶ control plane ─▶ builder: compile ─▶ link ─▶ snapshots ─▶ engine
//!              ▲                                            │
//!           Admin API ◀──────────── this node ◀─────────────┘
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::bundles;
use super::documents::{self, Reading};
use super::files::{self, Files};
use super::listeners::ProxyListeners;
use super::logging::Logging;
use super::node::Process;
use crate::admin::node::Node;
use crate::admin::state::{Admin, Keeping, VERSION};
use crate::base::seal::Seal;
use crate::control::builder::Builder;
use crate::control::everything::Change;
use crate::control::records::DurableRecords;
use crate::control::store::Store;
use crate::control::store::embedded::{EmbeddedStore, Ownership};
use crate::control::store::memory::MemoryStore;
use crate::control::{ControlPlane, Everything};
use crate::dialects::apigee::compile::{Options as BundleOptions, compile as compile_bundles};
use crate::dialects::apigee::{keys, lifecycle};
use crate::dialects::kong::compile::compile;
use crate::dialects::kong::compile::serving::compile_serving;
use crate::dialects::kong::declarative::export;
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::EntitySet;
use crate::engine::{AccessLog, AccessLogTarget, Engine, EngineOptions, ForcedDriver};
use crate::model::plan::PlanDelta;
use crate::plugins::apigee::flow::trace::Traces;
use crate::plugins::kong::renderer::KongRenderer;
use crate::plugins::{self, LostLines};
use crate::runtime::certificates::CertificateTable;
use crate::runtime::client::{Client, ClientOptions};
use crate::runtime::companion::Companions;
use crate::runtime::link::{Linker, LinkerParts};
use crate::runtime::live::Live;
use crate::runtime::pipeline::Pipeline;
use crate::runtime::probing;
use crate::runtime::records::{MemoryRecords, Records};
use crate::runtime::resolver::{RecordKind, Resolver, ResolverOptions};
use crate::runtime::revocation::Revocation;
use crate::runtime::router::Router;
use crate::runtime::serving::Serving;
use crate::runtime::slots::Slots;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::stapling;
use crate::settings::Settings;
use crate::settings::dns::{DnsRecord, DnsSettings};
use crate::settings::general::Database;
use crate::settings::logging::LogTarget;
use crate::settings::testing::TestDriver;

/// The id that log entries show for the only workspace there is. Kong gives each database one of its own.
const WORKSPACE: &str = "00000000-0000-0000-0000-000000000000";
/// Where a document that came through `/config` waits for a successor, in the prefix.
const LEFT_DOCUMENT: &str = "handed-over.json";
/// How often credentials whose time is over are removed.
const EXPIRY_LOOK_EVERY: Duration = Duration::from_secs(5);

/// The tied parts; see the module.
pub(crate) struct Gateway {
    pub(crate) settings: Settings,
    pub(crate) files: Files,
    pub(crate) reading: Arc<Reading>,
    pub(crate) control: Arc<ControlPlane<Everything>>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) node: Arc<Process>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    access_log_writer: Option<std::thread::JoinHandle<()>>,
    builder: Builder<Everything, Snapshot>,
    linker: Arc<Mutex<Linker>>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    pub(crate) live: Arc<Live>,
    pub(crate) resolver: Arc<Resolver>,
    /// Held here, because states without a holder are forgotten.
    traces: Arc<Traces>,
    _companions: Arc<Companions>,
}

impl Gateway {
    /// The snapshot that serves, as it changes.
    pub(crate) fn snapshots(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.snapshots)
    }

    /// Reads files, opens the store, and starts everything that serves no connection. `successor` says that another
    /// instance still owns the store. Must be called on the control runtime; blocks.
    pub(crate) fn assemble(
        settings: Settings,
        logging: Arc<Logging>,
        successor: bool,
        runtime: &tokio::runtime::Handle,
    ) -> anyhow::Result<Self> {
        let reading = Arc::new(Reading::of(&settings)?);
        let files = files::read(&settings, files::Missing::Make)?;
        let store = open_store(&settings, successor)?;
        let live = Arc::new(Live::default());
        live.node().identify(store.node_id(), hostname());
        let keeping = open_keeping(&settings, &live)?;
        let resolver = Resolver::start(resolver_options(&settings.dns), runtime)
            .map_err(|reason| anyhow!("names cannot be resolved: {reason}"))?;
        let client = Client::new(Arc::clone(&resolver), ClientOptions::default());
        probing::start(&live, runtime);
        let companions = Companions::of(&live);
        companions.start(runtime);
        live.node().add(Arc::new(LostLines));
        let first = empty_snapshot(&settings, &files)?;
        let snapshots = Arc::new(ArcSwap::from_pointee(first.clone()));
        let selection = &settings.general.plugins;
        let table = plugins::table()
            .into_iter()
            .filter(|entry| selection.includes(entry.info.name));
        let linker = Arc::new(Mutex::new(Linker::new(LinkerParts {
            live: Arc::clone(&live),
            resolver: Arc::clone(&resolver),
            client: Arc::clone(&client),
            plugins: table.chain(plugins::built_in()).collect(),
            prefix: settings.general.prefix.clone(),
            snapshot: first.clone(),
        })));
        if settings.tls.ssl_stapling {
            let trust = &first.serving.trust;
            let revocation = Revocation::shared(&client, trust, &live)
                .map_err(|reason| anyhow!("ssl_stapling: {reason}"))?;
            runtime.spawn(stapling::keep_fresh(Arc::clone(&snapshots), revocation));
        }
        let builder = start_builder(&reading, &linker, &snapshots, first)?;
        let control = ControlPlane::start(store, builder.subscriber())?;
        let control = Arc::new(control);
        let node = Arc::new(Process::new(
            Arc::clone(&live),
            Arc::clone(&snapshots),
            builder.served(),
            Box::new(Arc::clone(&logging)),
        ));
        let admin = Arc::new(
            Admin::new(
                Arc::clone(&control),
                Arc::clone(&reading.catalog),
                Arc::new(settings.clone()),
                Arc::clone(&node) as Arc<dyn Node>,
            )
            .with_keeping(keeping),
        );
        admin.users.store(files.users.clone());
        let (access_log, access_log_writer) = open_access_log(&settings)?;
        let gateway = Self {
            settings,
            files,
            reading,
            control,
            admin,
            node,
            access_log,
            access_log_writer,
            builder,
            linker,
            snapshots,
            traces: Traces::of(&live),
            _companions: companions,
            live,
            resolver,
        };
        gateway.traces.allow(gateway.settings.trace_token());
        if gateway.settings.general.database == Database::Off {
            let loaded = gateway.load_document(&gateway.settings)?;
            if !loaded && successor {
                gateway.take_document()?;
            }
            bundles::load(
                &gateway.control,
                &gateway.settings,
                &gateway.reading.bundles,
            )?;
        }
        Ok(gateway)
    }

    /// Binds the proxy's listeners.
    pub(crate) fn engine(
        &self,
        requests: ProxyListeners,
        streams: ProxyListeners,
        workers: usize,
        open_files: Option<u64>,
    ) -> anyhow::Result<Engine> {
        let mut inherited = requests.inherited;
        inherited.extend(streams.inherited);
        let engine = Engine::bind(EngineOptions {
            listeners: requests.listeners,
            stream_listeners: streams.listeners,
            tls: self.settings.tls.clone(),
            snapshots: Arc::clone(&self.snapshots),
            node: Arc::clone(self.live.node()),
            access_log: self.access_log.clone(),
            workers,
            upstream_pool_size: self.settings.limits.upstream_keepalive_pool_size.as_usize(),
            inherited,
            http2_idle: self.settings.limits.http2_idle_timeout.0,
            descriptors: open_files
                .map(|limit| (limit, self.settings.limits.reserved_descriptors.0)),
            forced_driver: match self.settings.testing.test_driver {
                TestDriver::Auto => None,
                TestDriver::Exchange => Some(ForcedDriver::Exchange),
                TestDriver::Duplex => Some(ForcedDriver::Duplex),
            },
        });
        engine.map_err(|reasons| anyhow!("proxy_listen, stream_listen: {}", reasons.join("; ")))
    }

    /// Takes plan parts over that no store holds, beside those that it does.
    pub(crate) fn plans(&self) -> Arc<dyn Fn(&PlanDelta) + Send + Sync> {
        let (linker, snapshots) = (Arc::clone(&self.linker), Arc::clone(&self.snapshots));
        Arc::new(move |delta| {
            let mut linker = linker.lock();
            let revision = linker.snapshot_mut().revision;
            let (snapshot, findings) = linker.apply(delta, revision);
            snapshots.store(snapshot);
            drop(linker);
            for finding in &findings {
                tracing::error!(code = finding.code, "{finding}");
            }
        })
    }

    /// Waits until everything that is stored serves.
    pub(crate) async fn serves(&self) -> anyhow::Result<()> {
        let revision = self.control.committed().revision;
        anyhow::ensure!(
            self.builder.serves(revision).await,
            "the configuration cannot be built"
        );
        Ok(())
    }

    /// The newest revision that serves.
    pub(crate) fn revision(&self) -> u64 {
        self.snapshots.load().revision
    }

    /// Takes over what can change while running. Keys that cannot are named in the log.
    pub(crate) fn reload(
        &mut self,
        mut settings: Settings,
        logging: &Logging,
    ) -> anyhow::Result<()> {
        let later = self.settings.changes_for_restart(&settings);
        // One of the two pools was made with the old size; half a change would help nobody.
        settings.limits.upstream_keepalive_pool_size =
            self.settings.limits.upstream_keepalive_pool_size;
        let files = files::read(&settings, files::Missing::Make)?;
        let (serving, renderer) = serving(&settings, &files)?;
        if settings.general.database == Database::Off
            && self.settings.general.database == Database::Off
        {
            self.load_document(&settings)?;
            bundles::load(&self.control, &settings, &self.reading.bundles)?;
        }
        self.traces.allow(settings.trace_token());
        for key in later {
            tracing::warn!(
                "{}: counts after a restart or upgrade only",
                settings.origin(key)
            );
        }
        logging.reload(&settings)?;
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        let mut linker = self.linker.lock();
        linker
            .snapshot_mut()
            .certificates
            .set_default(files.default_certificate.clone());
        let (snapshot, findings) = linker.reload(serving, renderer);
        self.snapshots.store(snapshot);
        drop(linker);
        for finding in &findings {
            tracing::warn!(code = finding.code, "{finding}");
        }
        // Whether passwords are demanded at all counts from the start: a reload neither opens nor closes the door.
        if self.files.users.is_some() && files.users.is_some() {
            self.admin.users.store(files.users.clone());
        }
        self.files = files;
        self.settings = settings;
        Ok(())
    }

    /// Replaces all entities by those of the declarative document that the settings name; false if they name none.
    fn load_document(&self, settings: &Settings) -> anyhow::Result<bool> {
        let Some((name, text)) = documents::configured_document(settings)? else {
            return Ok(false);
        };
        let loaded = self.reading.load(&name, &text, &mut |_, _| {})?;
        self.replace_entities(&name, loaded.entities)?;
        self.admin.adopt_document(&loaded.hash);
        Ok(true)
    }

    fn replace_entities(&self, name: &str, entities: EntitySet) -> anyhow::Result<()> {
        let replaced = self.control.write_kong_blocking(move |set, _| {
            let changes = EntitySet::difference(set, &entities);
            *set = entities.clone();
            Ok(((), changes))
        });
        replaced
            .map(|_| ())
            .map_err(|error| anyhow!("{name}: {error}"))
    }

    /// Without a database: leaves what `/config` brought where a successor finds it.
    pub(crate) fn leave_document(&self) -> anyhow::Result<()> {
        let Some(hash) = self.admin.document_hash() else {
            return Ok(());
        };
        if !self.admin.is_db_less() {
            return Ok(());
        }
        let document = export(
            &self.control.kong(),
            documents::unix_millis(SystemTime::now()),
        );
        let left = serde_json::json!({ "hash": hash, "document": document });
        let path = self.settings.general.prefix.join(LEFT_DOCUMENT);
        files::write_private(&path, &left.to_string()).map_err(|reason| anyhow!(reason))
    }

    /// Takes what a predecessor has left, if it left anything.
    fn take_document(&self) -> anyhow::Result<()> {
        let path = self.settings.general.prefix.join(LEFT_DOCUMENT);
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("{name}: cannot be read")),
        };
        let left: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{name}: is damaged"))?;
        let document = left
            .get("document")
            .context("the document that was left is damaged")?;
        let loaded = self
            .reading
            .load(&name, &document.to_string(), &mut |_, _| {})?;
        self.replace_entities(&name, loaded.entities)?;
        if let Some(hash) = left.get("hash").and_then(serde_json::Value::as_str) {
            self.admin.adopt_document(hash);
        }
        // It would be taken for current by the next successor.
        std::fs::remove_file(&path).with_context(|| format!("{name}: cannot be removed"))
    }

    /// Removes credentials and replaced deployments whose time is over, for ever.
    pub(crate) async fn remove_expired(control: std::sync::Weak<ControlPlane<Everything>>) {
        let mut looks = tokio::time::interval(EXPIRY_LOOK_EVERY);
        loop {
            looks.tick().await;
            let Some(control) = control.upgrade() else {
                return;
            };
            let seconds = |now: SystemTime| {
                now.duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs()
            };
            // Looked at on copies, which are cheap: most of the time nothing has expired and nothing is written.
            let mut copy = EntitySet::clone(&control.kong());
            if !copy.remove_expired(seconds(SystemTime::now())).is_empty() {
                let removed = control
                    .write_kong(move |set, write| Ok(((), set.remove_expired(seconds(write.now)))));
                if let Err(error) = removed.await {
                    tracing::warn!(%error, "expired credentials cannot be removed");
                }
            }
            let mut copy = control.apigee().as_ref().clone();
            let now = documents::unix_millis(SystemTime::now());
            if !lifecycle::remove_retired_by(&mut copy, now).is_empty() {
                let removed = control.write_apigee(move |set, write| {
                    let now = documents::unix_millis(write.now);
                    Ok(((), lifecycle::remove_retired_by(set, now)))
                });
                if let Err(error) = removed.await {
                    tracing::warn!(%error, "replaced deployments cannot be removed");
                }
            }
        }
    }

    /// Finishes what is queued: writes to the store, lines of the access log. Blocks.
    pub(crate) fn finish(self) {
        self.control.stop();
        let Self {
            access_log,
            access_log_writer,
            ..
        } = self;
        // The writer ends when nobody can write any more; a request that was cut off may still hold the log.
        if let (Some(log), Some(writer)) = (access_log.and_then(Arc::into_inner), access_log_writer)
        {
            drop(log);
            let _ = writer.join();
        }
    }
}

fn open_store(settings: &Settings, successor: bool) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match settings.general.database {
        Database::Off => Arc::new(MemoryStore::forgetful()),
        Database::Embedded => {
            let ownership = if successor {
                Ownership::Follow
            } else {
                Ownership::Own
            };
            Arc::new(EmbeddedStore::open(&settings.general.prefix, ownership)?)
        }
    })
}

/// What changes with traffic: in files of the prefix, or in memory without a store.
fn open_keeping(settings: &Settings, live: &Live) -> anyhow::Result<Keeping> {
    let (records, seal): (Arc<dyn Records>, Seal) = match settings.general.database {
        Database::Off => (Arc::new(MemoryRecords::default()), Seal::fleeting()),
        Database::Embedded => {
            let prefix = &settings.general.prefix;
            let records = DurableRecords::open(prefix).map_err(|reason| anyhow!(reason))?;
            (Arc::new(records), files::seal(prefix)?)
        }
    };
    live.keep_records(Arc::clone(&records));
    live.keep_seal(seal.clone());
    Ok(Keeping {
        records,
        entries: Arc::clone(live.entries()),
        seal,
    })
}

fn start_builder(
    reading: &Arc<Reading>,
    linker: &Arc<Mutex<Linker>>,
    snapshots: &Arc<ArcSwap<Snapshot>>,
    first: Snapshot,
) -> anyhow::Result<Builder<Everything, Snapshot>> {
    let (catalog, options) = (Arc::clone(&reading.catalog), reading.options());
    let edge = reading.bundles.clone();
    let (linker, snapshots) = (Arc::clone(linker), Arc::clone(snapshots));
    Builder::start(
        Box::new(move |before: &Everything, after: &Everything, changes| {
            let (kong, apigee) = Change::split(changes);
            let (mut delta, mut findings) =
                compile(&before.kong, &after.kong, &kong, &catalog, &options);
            let (bundles, found) = compile_bundles(
                (&before.apigee, &bundle_options(before, &edge)),
                (&after.apigee, &bundle_options(after, &edge)),
                &apigee,
            );
            delta.merge(bundles);
            delta.merge(keys::compile(&before.apigee, &after.apigee, &apigee));
            findings.extend(found);
            (delta, findings)
        }),
        Box::new(move |delta, revision| {
            // Published while the linker is held, so that a reload and a build never undo one another.
            let mut linker = linker.lock();
            let (snapshot, findings) = linker.apply(delta, revision);
            snapshots.store(Arc::clone(&snapshot));
            (snapshot, findings)
        }),
        // The engine reads the cell above; this one only satisfies the builder.
        Arc::new(ArcSwap::from_pointee(first)),
    )
    .context("no threads can be started")
}

/// How bundles are compiled beside everything else.
fn bundle_options(entities: &Everything, options: &BundleOptions) -> BundleOptions {
    BundleOptions {
        is_alone: entities.kong.rows(EntityKind::Route).next().is_none(),
        ..options.clone()
    }
}

/// What serves before the first build: no route, but the gateway's own answers.
fn empty_snapshot(settings: &Settings, files: &Files) -> anyhow::Result<Snapshot> {
    let (serving, renderer) = serving(settings, files)?;
    Ok(Snapshot {
        revision: 0,
        router: Router::default(),
        stream_router: Router::default(),
        passthrough_router: Router::default(),
        routes: Slots::default(),
        global_pipeline: Arc::new(Pipeline::default()),
        global_stream_pipeline: Arc::default(),
        directory: Default::default(),
        certificates: CertificateTable::new(files.default_certificate.clone()),
        authorities: Default::default(),
        certificate_requests: Default::default(),
        forwards: imbl::OrdMap::new(),
        clusters: imbl::OrdMap::new(),
        serving,
        renderer,
    })
}

type Answers = Arc<dyn crate::runtime::contract::Renderer>;

fn serving(settings: &Settings, files: &Files) -> anyhow::Result<(Arc<Serving>, Answers)> {
    let plan = compile_serving(settings, &files.serving, &format!("sallyport/{VERSION}"));
    let serving = Serving::link(plan).map_err(|reason| anyhow!("headers: {reason}"))?;
    let error_type = settings.proxying.error_default_type.word();
    let renderer = KongRenderer::new(files.templates.clone(), error_type, WORKSPACE);
    Ok((Arc::new(serving), Arc::new(renderer)))
}

fn resolver_options(dns: &DnsSettings) -> ResolverOptions {
    let kind = |record: &DnsRecord| match record {
        DnsRecord::Last => Some(RecordKind::Last),
        DnsRecord::Srv => Some(RecordKind::Service),
        DnsRecord::A => Some(RecordKind::V4),
        DnsRecord::Aaaa => Some(RecordKind::V6),
        // Aliases are followed whatever is asked for.
        DnsRecord::Cname => None,
    };
    ResolverOptions {
        name_servers: dns.dns_resolver.iter().map(|server| server.0).collect(),
        hosts_file: dns.dns_hostsfile.clone(),
        order: dns.dns_order.iter().filter_map(kind).collect(),
        valid: dns.dns_valid_ttl.map(|seconds| seconds.0),
        stale: dns.dns_stale_ttl.0,
        not_found: dns.dns_not_found_ttl.0,
        error: dns.dns_error_ttl.0,
    }
}

type OpenLog = (Option<Arc<AccessLog>>, Option<std::thread::JoinHandle<()>>);

fn open_access_log(settings: &Settings) -> anyhow::Result<OpenLog> {
    let target = match &settings.logging.proxy_access_log {
        LogTarget::Off => return Ok((None, None)),
        LogTarget::Stdout => AccessLogTarget::Stdout,
        LogTarget::Stderr => AccessLogTarget::Stderr,
        LogTarget::File(path) => {
            let path = settings.general.prefix.join(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("{}: cannot be made", folder.display()))?;
            }
            AccessLogTarget::File(path)
        }
    };
    let (log, writer) = AccessLog::open(target).context("proxy_access_log: cannot be opened")?;
    Ok((Some(Arc::new(log)), Some(writer)))
}

/// The machine's name, as the kernel knows it.
fn hostname() -> String {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}
