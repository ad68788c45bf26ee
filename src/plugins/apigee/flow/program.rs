//! A program linked: conditions and templates parsed, policies built, once for all requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use crate::dialects::apigee::bundle;
use crate::dialects::apigee::condition::Condition;
use crate::dialects::apigee::program as plan;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::clients::Clients;
use crate::plugins::apigee::flow::dynamic::DynamicForwards;
use crate::plugins::apigee::flow::registry::Registry;
use crate::plugins::apigee::flow::script::ScriptWay;
use crate::plugins::apigee::flow::trace::Traces;
use crate::plugins::apigee::policies::{self, Place, Policy, PolicyLink};
use crate::runtime::contract::LinkContext;

/// A proxy endpoint ready to run.
pub(crate) struct Program {
    pub(crate) plan: plan::ProxyProgram,
    /// Of its instance in the plan.
    pub(crate) id: Uuid,
    pub(crate) place: Arc<Place>,
    pub(crate) endpoint: Arc<str>,
    pub(crate) configured_base_path: Arc<str>,
    pub(crate) flows: Flows,
    pub(crate) routes: Vec<Route>,
    pub(crate) targets: Vec<Target>,
    pub(crate) shared_flows: AHashMap<String, Arc<SharedFlow>>,
    pub(crate) hooks: plan::Hooks,
    pub(crate) entrances: BTreeMap<Uuid, Entrance>,
    /// Nothing of it looks at a request: the request passes with a new target and no more.
    pub(crate) is_transparent: bool,
    pub(crate) dynamic: Arc<DynamicForwards>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) traces: Arc<Traces>,
}

/// A virtual host by which it is reached.
pub(crate) struct Entrance {
    pub(crate) name: Arc<str>,
    pub(crate) aliases: Arc<[String]>,
    pub(crate) tls: bool,
    pub(crate) clients: Option<Clients>,
}

/// The flows of an endpoint.
#[derive(Default)]
pub(crate) struct Flows {
    pub(crate) pre: Sides,
    pub(crate) conditional: Vec<Flow>,
    pub(crate) post: Sides,
    pub(crate) post_client: Vec<Step>,
    pub(crate) fault_rules: Vec<FaultRule>,
    pub(crate) default_fault_rule: Option<(FaultRule, bool)>,
}

#[derive(Default)]
pub(crate) struct Sides {
    pub(crate) request: Vec<Step>,
    pub(crate) response: Vec<Step>,
}

pub(crate) struct Flow {
    pub(crate) name: Arc<str>,
    pub(crate) description: Option<Arc<str>>,
    pub(crate) condition: Option<Condition>,
    pub(crate) steps: Sides,
}

pub(crate) struct FaultRule {
    pub(crate) name: Arc<str>,
    pub(crate) condition: Option<Condition>,
    pub(crate) steps: Vec<Step>,
}

/// An attachment of a policy.
pub(crate) struct Step {
    pub(crate) condition: Option<Condition>,
    pub(crate) policy: Arc<LinkedPolicy>,
}

/// A policy linked, shared by all its attachments.
pub(crate) struct LinkedPolicy {
    pub(crate) name: Arc<str>,
    pub(crate) enabled: bool,
    pub(crate) continue_on_error: bool,
    pub(crate) waits: bool,
    /// `PREFIX.NAME.failed`
    pub(crate) failed: VariableName,
    pub(crate) policy: Box<dyn Policy>,
}

pub(crate) struct SharedFlow {
    pub(crate) name: Arc<str>,
    pub(crate) steps: Vec<Step>,
}

pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) condition: Option<Condition>,
    pub(crate) to: RouteTo,
}

pub(crate) enum RouteTo {
    /// Index into the program's targets.
    Target(usize),
    Url(Box<HttpWay>),
    Nowhere,
}

pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) flows: Flows,
    pub(crate) way: Way,
}

pub(crate) enum Way {
    Http(Box<HttpWay>),
    Local(LocalWay),
    Script(Box<ScriptWay>),
}

/// Another proxy of the environment.
pub(crate) enum LocalWay {
    Proxy { proxy: Template, endpoint: Template },
    Path(Template),
}

/// A target reached over HTTP.
pub(crate) struct HttpWay {
    pub(crate) plan: plan::HttpWay,
    pub(crate) url: Option<Url>,
    pub(crate) path: Option<Template>,
}

/// A URL whose parts are known, or a template.
pub(crate) enum Url {
    Fixed(crate::dialects::apigee::url::UrlParts),
    Template(Template),
}

impl Flows {
    /// Does none of them look at a target's response? A condition may fail, so that any counts.
    pub(crate) fn pass_responses_on(&self) -> bool {
        self.pre.response.is_empty()
            && self.post.response.is_empty()
            && self.conditional.is_empty()
            && self.post_client.is_empty()
    }

    /// Is a policy attached somewhere on the response's side?
    pub(crate) fn responds_with(&self, policy: &str) -> bool {
        let flows = self.conditional.iter().map(|flow| &flow.steps);
        let mut sides = [&self.pre, &self.post].into_iter().chain(flows);
        sides.any(|sides| {
            let mut steps = sides.response.iter();
            steps.any(|step| *step.policy.name == *policy)
        })
    }

    /// Has it rules for faults of its own?
    pub(crate) fn has_fault_rules(&self) -> bool {
        !self.fault_rules.is_empty() || self.default_fault_rule.is_some()
    }
}

/// Parses a condition that the compiler has accepted.
fn condition(text: Option<&String>) -> Result<Option<Condition>, String> {
    text.map(|text| Condition::parse(text).map_err(|error| format!("condition '{text}': {error}")))
        .transpose()
}

pub(crate) fn template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| format!("template '{text}': {error}"))
}

/// The policies that steps of one bundle name.
type Policies = AHashMap<String, Arc<LinkedPolicy>>;

fn link_policies(
    plans: &BTreeMap<String, plan::Policy>,
    place: &Place,
    context: &LinkContext<'_>,
) -> Result<Policies, String> {
    plans
        .iter()
        .map(|(name, plan)| {
            let failed = |error: String| format!("policy \"{name}\": {error}");
            let entry = policies::entry(&plan.kind)
                .ok_or_else(|| failed(format!("type {} cannot run", plan.kind)))?;
            let link = PolicyLink {
                name,
                config: &plan.config,
                resources: &plan.resources,
                callout: plan.callout.as_ref(),
                cache: plan.cache.as_ref(),
                place,
                context,
            };
            let policy = (entry.link)(&link).map_err(failed)?;
            let linked = LinkedPolicy {
                name: name.as_str().into(),
                enabled: plan.enabled,
                continue_on_error: plan.continue_on_error,
                waits: policy.waits(),
                failed: VariableName::new(&format!("{}.{name}.failed", entry.prefix)),
                policy,
            };
            Ok((name.clone(), Arc::new(linked)))
        })
        .collect()
}

fn link_steps(steps: &[bundle::Step], policies: &Policies) -> Result<Vec<Step>, String> {
    steps
        .iter()
        .map(|step| {
            let policy = policies
                .get(&step.policy)
                .ok_or_else(|| format!("there is no policy \"{}\"", step.policy))?;
            Ok(Step {
                condition: condition(step.condition.as_ref())?,
                policy: Arc::clone(policy),
            })
        })
        .collect()
}

fn link_sides(sides: &bundle::Sides, policies: &Policies) -> Result<Sides, String> {
    Ok(Sides {
        request: link_steps(&sides.request, policies)?,
        response: link_steps(&sides.response, policies)?,
    })
}

fn link_flows(flows: &bundle::Flows, policies: &Policies) -> Result<Flows, String> {
    let conditional = flows.conditional.iter().map(|flow| {
        Ok(Flow {
            name: flow.name.as_str().into(),
            description: flow.description.as_deref().map(Arc::from),
            condition: condition(flow.condition.as_ref())?,
            steps: link_sides(&flow.steps, policies)?,
        })
    });
    let fault_rules = flows.fault_rules.iter().map(|rule| {
        Ok(FaultRule {
            name: rule.name.as_str().into(),
            condition: condition(rule.condition.as_ref())?,
            steps: link_steps(&rule.steps, policies)?,
        })
    });
    let default = flows.default_fault_rule.as_ref().map(|rule| {
        let linked = FaultRule {
            name: rule.name.as_str().into(),
            condition: condition(rule.condition.as_ref())?,
            steps: link_steps(&rule.steps, policies)?,
        };
        Ok::<_, String>((linked, rule.always_enforce))
    });
    Ok(Flows {
        pre: link_sides(&flows.pre, policies)?,
        conditional: conditional.collect::<Result<_, String>>()?,
        post: link_sides(&flows.post, policies)?,
        post_client: link_steps(&flows.post_client, policies)?,
        fault_rules: fault_rules.collect::<Result<_, String>>()?,
        default_fault_rule: default.transpose()?,
    })
}

pub(crate) fn link_http(plan: &plan::HttpWay) -> Result<HttpWay, String> {
    let url = match &plan.url {
        None => None,
        Some(url) if plan.is_dynamic => Some(Url::Template(template(url)?)),
        Some(url) => Some(Url::Fixed(crate::dialects::apigee::url::UrlParts::parse(
            url,
        )?)),
    };
    Ok(HttpWay {
        url,
        path: plan.path.as_deref().map(template).transpose()?,
        plan: plan.clone(),
    })
}

pub(crate) fn link_way(
    plan: &plan::Way,
    place: &Place,
    context: &LinkContext<'_>,
) -> Result<Way, String> {
    Ok(match plan {
        plan::Way::Script(script) => {
            Way::Script(Box::new(ScriptWay::link(script, place, context)?))
        }
        plan::Way::Http(http) => Way::Http(Box::new(link_http(http)?)),
        plan::Way::Local(bundle::LocalTarget::Path(path)) => {
            Way::Local(LocalWay::Path(template(path)?))
        }
        plan::Way::Local(bundle::LocalTarget::Proxy { proxy, endpoint }) => {
            Way::Local(LocalWay::Proxy {
                proxy: template(proxy)?,
                endpoint: template(endpoint)?,
            })
        }
    })
}

impl Program {
    /// Links a program.
    pub(crate) fn link(
        id: Uuid,
        plan: plan::ProxyProgram,
        context: &LinkContext<'_>,
    ) -> Result<Arc<Self>, String> {
        let place = Place {
            organization: plan.organization.clone(),
            environment: plan.environment.clone(),
            proxy: plan.proxy.clone(),
            revision: plan.revision,
            shared_flow: None,
        };
        let linked = link_policies(&plan.policies, &place, context)?;
        let mut shared_flows = AHashMap::new();
        for (name, flow) in &plan.shared_flows {
            let place = Place {
                shared_flow: Some(name.clone()),
                ..place.clone()
            };
            let policies = link_policies(&flow.policies, &place, context)
                .map_err(|error| format!("shared flow \"{name}\": {error}"))?;
            let steps = link_steps(&flow.steps, &policies)?;
            let flow = SharedFlow {
                name: name.as_str().into(),
                steps,
            };
            shared_flows.insert(name.clone(), Arc::new(flow));
        }
        let mut targets = Vec::new();
        for (name, target) in &plan.targets {
            let failed = |error| format!("target endpoint \"{name}\": {error}");
            targets.push(Target {
                name: name.as_str().into(),
                flows: link_flows(&target.flows, &linked).map_err(failed)?,
                way: link_way(&target.way, &place, context).map_err(failed)?,
            });
        }
        let routes = plan.routes.iter().map(|route| {
            let to = match &route.to {
                plan::RouteTo::Nowhere => RouteTo::Nowhere,
                plan::RouteTo::Url(way) => RouteTo::Url(Box::new(link_http(way)?)),
                plan::RouteTo::Target(name) => {
                    let index = plan.targets.keys().position(|other| other == name);
                    RouteTo::Target(index.ok_or_else(|| format!("there is no target \"{name}\""))?)
                }
            };
            Ok::<_, String>(Route {
                name: route.name.as_str().into(),
                condition: condition(route.condition.as_ref())?,
                to,
            })
        });
        let entrances = plan.entrances.iter().map(|(id, entrance)| {
            let linked = Entrance {
                name: entrance.virtual_host.as_str().into(),
                aliases: entrance.aliases.clone().into(),
                tls: entrance.tls,
                clients: entrance.clients.clone().map(Clients::link),
            };
            (*id, linked)
        });
        let dynamic = DynamicForwards::of(context);
        let registry = context.live.keep("flow programs", Registry::default);
        let program = Arc::new(Self {
            id,
            endpoint: plan.endpoint.as_str().into(),
            configured_base_path: plan.configured_base_path.as_str().into(),
            flows: link_flows(&plan.flows, &linked)?,
            routes: routes.collect::<Result<_, String>>()?,
            targets,
            shared_flows,
            hooks: plan.hooks.clone(),
            entrances: entrances.collect(),
            is_transparent: is_transparent(&plan),
            dynamic,
            traces: Traces::of(context.live),
            registry: Arc::clone(&registry),
            place: Arc::new(place),
            plan,
        });
        registry.register(&program);
        Ok(program)
    }

    /// Does no step, no hook and no property of the proxy endpoint look at a target's response?
    pub(crate) fn passes_responses_on(&self) -> bool {
        self.flows.pass_responses_on()
            && self.hooks.post_target.is_none()
            && self.hooks.post_proxy.is_none()
            && self.plan.properties.compression.is_none()
    }

    /// The virtual host behind a route.
    pub(crate) fn entrance(&self, route: Option<Uuid>) -> Option<&Entrance> {
        route
            .and_then(|route| self.entrances.get(&route))
            .or_else(|| self.entrances.values().next())
    }
}

/// One fixed target, no step, no hook, no property that touches a message.
fn is_transparent(plan: &plan::ProxyProgram) -> bool {
    let [route] = plan.routes.as_slice() else {
        return false;
    };
    let quiet = plan.hooks == plan::Hooks::default()
        && plan.entrances.values().all(|it| it.clients.is_none())
        && plan.flows.is_empty()
        && plan.properties
            == bundle::ProxyProperties {
                request_streaming: plan.properties.request_streaming,
                response_streaming: plan.properties.response_streaming,
                ..Default::default()
            }
        && route.condition.is_none();
    let way = match &route.to {
        plan::RouteTo::Url(way) => Some(&**way),
        plan::RouteTo::Target(name) => plan.targets.get(name).and_then(|target| {
            let plan::Way::Http(way) = &target.way else {
                return None;
            };
            target.flows.is_empty().then_some(&**way)
        }),
        plan::RouteTo::Nowhere => None,
    };
    quiet
        && way.is_some_and(|way| {
            let kept = &way.properties;
            !way.is_dynamic
                && way.tls.is_none()
                && way.path.as_ref().is_none_or(|path| !path.contains('{'))
                && kept.compression.is_none()
                && kept.request_headers.keeps_all()
                && kept.response_headers.keeps_all()
                && kept.query_parameters.keeps_all()
                && kept.method_override.is_empty()
        })
}
