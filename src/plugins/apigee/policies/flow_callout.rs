//! `FlowCallout`: runs the steps of a shared flow in place, with the same variables and messages.

use async_trait::async_trait;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::policies::flow_callout::Config;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::execute;

struct FlowCallout {
    shared_flow: Template,
    parameters: Vec<Parameter>,
}

struct Parameter {
    name: VariableName,
    reference: Option<VariableName>,
    value: Option<Template>,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let template = |text: &str| Template::parse(text).map_err(|error| error.to_string());
    let parameters = config.parameters.iter().map(|parameter| {
        Ok(Parameter {
            name: VariableName::new(&parameter.name),
            reference: parameter.reference.as_deref().map(VariableName::new),
            value: parameter.value.as_deref().map(template).transpose()?,
        })
    });
    Ok(Box::new(FlowCallout {
        shared_flow: template(&config.shared_flow)?,
        parameters: parameters.collect::<Result<_, String>>()?,
    }))
}

#[async_trait]
impl Policy for FlowCallout {
    fn waits(&self) -> bool {
        true
    }

    async fn execute_async(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        for parameter in &self.parameters {
            let referred = parameter.reference.as_ref();
            let value = referred.and_then(|name| flow.owned(name)).or_else(|| {
                let text = flow.fill(parameter.value.as_ref()?);
                Some(Value::from(text))
            });
            if let Some(value) = value {
                flow.set(&parameter.name, value)
                    .map_err(|error| PolicyFault::of_write("flow", &error))?;
            }
        }
        let name = flow.fill(&self.shared_flow);
        execute::shared_flow(flow, name.trim()).await
    }
}
