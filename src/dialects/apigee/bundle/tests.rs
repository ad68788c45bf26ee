#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter()
        .map(|(path, text)| (Arc::from(*path), Arc::from(text.as_bytes())))
        .collect()
}

fn told(findings: &Findings) -> Vec<String> {
    findings
        .as_slice()
        .iter()
        .map(ToString::to_string)
        .collect()
}

const TARGET: &str = "<TargetEndpoint name='default'><HTTPTargetConnection><URL>http://a.test/x</URL>\
    </HTTPTargetConnection></TargetEndpoint>";

#[test]
fn reads_a_proxy() {
    let proxy = "<ProxyEndpoint name='default'>\
        <PreFlow name='PreFlow'><Request><Step><Name>Call</Name><Condition>request.verb = \"GET\"</Condition></Step></Request></PreFlow>\
        <Flows><Flow name='a'><Condition/><Response><Step><Name>Call</Name></Step></Response></Flow></Flows>\
        <FaultRules><FaultRule name='one'/><FaultRule name='two'/></FaultRules>\
        <HTTPProxyConnection><BasePath>weather/</BasePath><VirtualHost>default</VirtualHost>\
        <Properties><Property name='api.timeout'>2000</Property></Properties></HTTPProxyConnection>\
        <RouteRule name='none'><Condition>request.verb = \"OPTIONS\"</Condition></RouteRule>\
        <RouteRule name='default'><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>";
    let call = "<FlowCallout name='Call'><SharedFlowBundle>shared</SharedFlowBundle>\
        <Parameters><Parameter name='p'>v</Parameter></Parameters></FlowCallout>";
    let (bundle, findings) = parse_proxy(&files(&[
        ("weather.xml", "<APIProxy name='weather'/>"),
        ("proxies/default.xml", proxy),
        ("proxies/.hidden.xml", "<"),
        ("targets/default.xml", TARGET),
        ("policies/c.xml", call),
    ]));
    assert_eq!(told(&findings), [] as [&str; 0]);
    let proxy = bundle.proxy("default").unwrap();
    assert_eq!(proxy.base_path, "/weather");
    assert_eq!(proxy.properties.api_timeout_ms, Some(2000));
    assert_eq!(proxy.flows.pre.request.len(), 1);
    assert_eq!(proxy.flows.conditional[0].condition, None);
    let rules: Vec<_> = proxy.flows.fault_rules.iter().map(|it| &*it.name).collect();
    assert_eq!(
        rules,
        ["two", "one"],
        "a proxy endpoint tries the last rule first"
    );
    assert_eq!(proxy.routes[0].to, RouteTo::Nowhere);
    assert_eq!(
        bundle.policies["Call"].parsed.shared_flows[0].value,
        "shared"
    );
}

#[test]
fn tells_everything_that_is_wrong_at_once() {
    let proxy = "<ProxyEndpoint name='default'>\n\
        <PreFlow><Request><Step><Name>Missing</Name></Step></Request></PreFlow>\n\
        <HTTPProxyConnection><BasePath>/*/x</BasePath>\n\
        <Properties><Property name='odd'>1</Property></Properties></HTTPProxyConnection>\n\
        <RouteRule name='r'><TargetEndpoint>nowhere</TargetEndpoint></RouteRule></ProxyEndpoint>";
    let (_, findings) = parse_proxy(&files(&[
        ("proxies/default.xml", proxy),
        (
            "targets/a.xml",
            "<TargetEndpoint name='a'><HostedTarget/></TargetEndpoint>",
        ),
        ("targets/b.xml", "<TargetEndpoint name='b'/>"),
        ("policies/j.xml", "<JavaCallout name='J'/>"),
        ("policies/broken.xml", "<A><B></A>"),
    ]));
    let told = told(&findings);
    let expected = [
        "proxies/default.xml:3: <BasePath>: '*' cannot be the first segment of a base path",
        "proxies/default.xml:4: property \"odd\": is not known and has no effect",
        "targets/a.xml:1: <HostedTarget>: is not supported",
        "targets/b.xml:1: <TargetEndpoint>: needs one of",
        "policies/broken.xml:1",
        "policies/j.xml:1: policy \"J\" has type JavaCallout, which this server does not run",
        "proxies/default.xml:2: <Step>: names the policy 'Missing'",
        "proxies/default.xml:5: route rule \"r\": names the target endpoint 'nowhere'",
    ];
    for start in expected {
        assert!(
            told.iter().any(|line| line.starts_with(start)),
            "{start}: {told:#?}"
        );
    }
}

#[test]
fn reads_shared_flows() {
    let flow = |name: &str| {
        format!("<SharedFlow name='{name}'><Step><Name>Call</Name></Step></SharedFlow>")
    };
    let call = "<FlowCallout name='Call'><SharedFlowBundle>other</SharedFlowBundle></FlowCallout>";
    let (one, two) = (flow("default"), flow("second"));
    let read = |list: &[(&str, &str)]| parse_shared_flow(&files(list));
    let (bundle, findings) = read(&[("sharedflows/a.xml", &two), ("policies/c.xml", call)]);
    assert!(findings.is_empty(), "{:?}", told(&findings));
    assert_eq!(bundle.shared_flow.len(), 1);
    let (_, findings) = read(&[
        ("sharedflows/a.xml", &two),
        ("sharedflows/b.xml", &one),
        ("policies/c.xml", call),
    ]);
    assert!(findings.is_empty(), "{:?}", told(&findings));
    let (_, findings) = read(&[("policies/c.xml", call)]);
    assert!(findings.has_errors());
}

#[test]
fn knows_successes() {
    let element = "<P><Property name='success.codes'>1XX, 2xx,404</Property></P>";
    let document = Document::parse("t.xml", element, Limits::CONFIGURATION).unwrap();
    let mut findings = Findings::new();
    let read = properties::read_target_properties(document.root(), &mut findings);
    assert!(findings.is_empty(), "{:?}", told(&findings));
    let is = |status| is_success(&read.success_codes, status);
    assert_eq!(
        [is(100), is(204), is(404), is(302), is(500)],
        [true, true, true, false, false]
    );
    assert!(is_success(&[], 302) && !is_success(&[], 400));
}
