//! Flow hooks: shared flows attached to all proxies of an environment.

use http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::dialects::apigee::entities::{BundleKind, FlowHook, HookPoint, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// Answers calls below `/environments/E/flowhooks`.
pub(super) async fn answer(
    call: &Call,
    environment: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let [point] = rest else {
        if rest.is_empty() && call.method == Method::GET {
            return Ok(Reply::ok(
                "List",
                json!(HookPoint::ALL.map(HookPoint::word)),
            ));
        }
        return Err(call.unknown());
    };
    let Some(point) = HookPoint::from_word(point) else {
        return Err(Kind::FlowHook.missing(point, format_args!("in environment {environment}")));
    };
    let key = [
        call.organization.clone(),
        environment.to_owned(),
        point.word().to_owned(),
    ];
    let borrowed = key.each_ref().map(String::as_str);
    match call.method {
        Method::GET => {
            let hook = call.set().find::<FlowHook>(&borrowed);
            Ok(Reply::ok("FlowHook", show(point, hook.as_ref())))
        }
        Method::PUT | Method::POST => {
            let hook = FlowHook::read(call.fields()?, Stamp::default())?;
            let user = call.user.clone();
            let written = call.write(move |set, moment| {
                let [organization, environment, _] = &key;
                let flow = hook.shared_flow.as_str();
                let kind = BundleKind::SharedFlow;
                if !set.has(Kind::Bundle, &[organization, kind.word(), flow]) {
                    return Err(kind.missing(flow, organization));
                }
                if set
                    .deployed_revision(organization, environment, kind, flow)
                    .is_none()
                {
                    return Err(ApiError::bad_request(format!(
                        "SharedFlow {flow} is not deployed in environment {environment}"
                    )));
                }
                let mut hook = hook.clone();
                hook.stamp = Stamp::new(moment.unix_ms(), &user);
                let change = set.put(&key.each_ref().map(String::as_str), &hook);
                Ok((show(point, Some(&hook)), vec![change]))
            });
            let (shown, revision) = written.await?;
            call.serves(revision).await?;
            Ok(Reply::ok("FlowHook", shown).at(revision))
        }
        Method::DELETE => {
            let known = call.set().find::<FlowHook>(&borrowed);
            let shown = show(point, known.as_ref());
            let written = call.write(move |set, _| {
                let key = key.each_ref().map(String::as_str);
                let removed = set.remove(Kind::FlowHook, &key);
                Ok(((), removed.into_iter().collect()))
            });
            let revision = written.await?.1;
            call.serves(revision).await?;
            Ok(Reply::ok("FlowHook", shown).at(revision))
        }
        _ => Err(call.unknown()),
    }
}

fn show(point: HookPoint, hook: Option<&FlowHook>) -> Value {
    let mut shown = json!({
        "continueOnError": hook.is_none_or(|hook| hook.continue_on_error),
        "description": hook.map_or("", |hook| &hook.description),
        "flowHookPoint": point.word(),
    });
    if let (Some(hook), Some(fields)) = (hook, shown.as_object_mut()) {
        fields.insert("sharedFlow".to_owned(), hook.shared_flow.clone().into());
    }
    shown
}
