#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Map, json};

use super::*;
use crate::model::catalog::PluginInfo;
use crate::model::schema::Record;

fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

fn catalog() -> Catalog {
    let plugin = |name, priority| PluginInfo::new(name, priority, Record::default());
    Catalog::new([plugin("first", 20), plugin("second", 10)])
}

fn row(kind: EntityKind, name: &str, value: Value) -> Arc<Row> {
    Arc::new(Row::from_stored(kind, id(name), value.to_string().into()).unwrap())
}

fn reference(name: Option<&str>) -> Value {
    name.map_or(Value::Null, |name| json!({"id": id(name)}))
}

fn route(name: &str, service: Option<&str>) -> Arc<Row> {
    let fields = json!({"id": id(name), "service": reference(service)});
    row(EntityKind::Route, name, fields)
}

/// `plugin:label` with scopes as `r=NAME s=NAME c=NAME g=NAME`, and `off`, `tcp`.
fn plugin(text: &str) -> Arc<Row> {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let scopes: Map<String, Value> = words
        .clone()
        .filter_map(|word| word.split_once('='))
        .map(|(scope, name)| (scope.to_owned(), name.into()))
        .collect();
    let scope = |key: &str| reference(scopes.get(key).and_then(Value::as_str));
    let off = words.clone().any(|word| word == "off");
    let tcp = words.any(|word| word == "tcp");
    row(
        EntityKind::Plugin,
        text,
        json!({
            "id": id(text), "created_at": 1, "updated_at": 1,
            "name": name.split(':').next().unwrap(), "instance_name": null,
            "route": scope("r"), "service": scope("s"),
            "consumer": scope("c"), "consumer_group": scope("g"),
            "config": {}, "protocols": [if tcp { "tcp" } else { "http" }],
            "enabled": !off, "tags": null,
        }),
    )
}

fn set(rows: impl IntoIterator<Item = Arc<Row>>) -> EntitySet {
    let mut set = EntitySet::new();
    for row in rows {
        set.put(row);
    }
    set
}

/// The plugins that run for a route, as `plugin=instance`, for a caller.
fn chosen(
    plan: &PipelinePlan,
    caller: Option<&str>,
    group: Option<&str>,
    texts: &[&str],
) -> Vec<String> {
    let text = |candidate: &Candidate| {
        let found = texts.iter().find(|text| id(text) == candidate.instance.id);
        (*found.unwrap()).to_owned()
    };
    plan.steps
        .iter()
        .filter_map(|step| {
            let of_caller = caller.and_then(|name| step.by_principal.get(&id(name)));
            let of_group = group.and_then(|name| step.by_group.get(&id(name)));
            step.base
                .iter()
                .chain(of_caller)
                .chain(of_group)
                .min_by_key(|candidate| candidate.rank)
                .map(text)
        })
        .collect()
}

#[test]
fn the_most_specific_instance_runs() {
    // From the least specific to the most specific; each wins over all before.
    let order = [
        "first",
        "first s=S",
        "first r=R",
        "first g=G",
        "first c=C",
        "first r=R s=S",
        "first g=G s=S",
        "first g=G r=R",
        "first c=C s=S",
        "first c=C r=R",
        "first g=G r=R s=S",
        "first c=C r=R s=S",
    ];
    for count in 1..=order.len() {
        let texts = order.get(..count).unwrap();
        let rows = texts.iter().map(|text| plugin(text));
        let set = set(rows.chain([route("R", Some("S"))]));
        let key = key_of(&set, id("R"), Some(id("S")), false);
        let plan = Compiler::new(&set, &catalog()).pipeline(key);
        let winner = order.get(count - 1).unwrap();
        assert_eq!(
            chosen(&plan, Some("C"), Some("G"), texts),
            [(*winner).to_owned()]
        );
    }
}

#[test]
fn leaves_out_what_does_not_run_here() {
    let texts = [
        "first off",
        "first:b tcp",
        "first:c r=OTHER",
        "first:d s=S r=OTHER",
        "first:e s=OTHER r=R",
        "unknown",
        "second",
        "second:f r=R",
    ];
    let rows = texts.iter().map(|text| plugin(text));
    let set = set(rows.chain([route("R", Some("S"))]));
    let catalog = catalog();
    let mut compiler = Compiler::new(&set, &catalog);
    let plan = compiler.pipeline(key_of(&set, id("R"), Some(id("S")), false));
    assert_eq!(chosen(&plan, None, None, &texts), ["second:f r=R"]);
    let findings: Vec<&str> = compiler
        .findings
        .iter()
        .map(|finding| finding.message.as_str())
        .collect();
    assert_eq!(findings, ["plugin 'unknown' is not part of this build"]);
}

#[test]
fn steps_stand_by_priority() {
    let set = set(["second", "first"].map(plugin));
    let plan = Compiler::new(&set, &catalog()).pipeline(PipelineKey::default());
    let names: Vec<&str> = plan.steps.iter().map(|step| &*step.plugin).collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn routes_share_pipelines() {
    let set = set([
        route("R1", Some("S")),
        route("R2", Some("S")),
        route("R3", None),
        plugin("first s=S"),
        plugin("second r=R2"),
    ]);
    let key = |route: &str, service| key_of(&set, id(route), service, false);
    let service = Some(id("S"));
    let expected = |forward, route| PipelineKey {
        forward,
        route,
        stream: false,
    };
    assert_eq!(key("R1", service), expected(service, None));
    assert_eq!(key("R2", service), expected(service, Some(id("R2"))));
    assert_eq!(key("R3", None), PipelineKey::default());
}

/// Whatever changes, the edits lead from the pipelines before to those of a full compile.
#[test]
fn edits_lead_to_what_a_full_compile_gives() {
    let base = || {
        vec![
            route("R1", Some("S")),
            route("R2", Some("S")),
            route("R3", None),
            plugin("first"),
            plugin("first s=S"),
            plugin("second r=R2"),
            plugin("second c=C"),
        ]
    };
    let add = |row: Arc<Row>| (Some(row), None);
    let take = |kind: EntityKind, name: &'static str| (None, Some((kind, name)));
    let changes = [
        add(plugin("second")),
        add(plugin("first r=R1")),
        add(plugin("first c=C r=R3")),
        add(plugin("second s=S")),
        add(route("R2", None)),
        add(route("R4", Some("S"))),
        take(EntityKind::Plugin, "first"),
        take(EntityKind::Plugin, "first s=S"),
        take(EntityKind::Plugin, "second r=R2"),
    ];
    let catalog = catalog();
    let empty = EntitySet::new();
    let full = |set: &EntitySet| {
        let changes = EntitySet::difference(&empty, set);
        let (edits, _) = compile_pipelines(&empty, set, &changes, &catalog);
        let plans = edits
            .into_iter()
            .filter_map(|(key, plan)| Some((key, plan?)));
        plans.collect::<BTreeMap<_, _>>()
    };
    for (added, taken) in changes {
        let case = format!("{added:?} {taken:?}");
        let before = set(base());
        let mut after = before.clone();
        let change = match (added, taken) {
            (Some(row), _) => after.put(row),
            (None, taken) => {
                let (kind, name) = taken.unwrap();
                after.take(kind, id(name)).unwrap()
            }
        };
        let (edits, _) =
            compile_pipelines(&before, &after, std::slice::from_ref(&change), &catalog);
        let mut plans = full(&before);
        for (key, plan) in edits {
            match plan {
                Some(plan) => plans.insert(key, plan),
                None => plans.remove(&key),
            };
        }
        assert_eq!(plans, full(&after), "{case}");
        // Every route finds its pipeline, and routes with another one are told.
        let told = routes_with_other_pipeline(&before, &after, &[change]);
        for row in after.rows(EntityKind::Route) {
            let key = key_of_row(&after, row).unwrap();
            assert!(plans.contains_key(&key), "{case}: {key:?}");
            if let Some(was) = before.row(EntityKind::Route, row.id)
                && was == row
                && key_of_row(&before, was) != Some(key)
            {
                assert!(told.contains(&row.id), "{case}");
            }
        }
    }
}
