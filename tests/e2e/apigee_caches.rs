//! The cache policies of Apigee bundles: what they keep, for whom, and how it is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::apigee_flows::{Bundles, TO_DEFAULT, endpoint, order, raise, step, target};
use crate::harness::{Gateway, Origin, Reply, for_both_drivers};

/// An origin that numbers its answers.
fn counting() -> Origin {
    let answers = Arc::new(AtomicUsize::new(0));
    Origin::answering(move |request| {
        let number = answers.fetch_add(1, Ordering::SeqCst) + 1;
        let status = if request.target.contains("/teapot") {
            418
        } else {
            200
        };
        let max_age = request.header("X-Max-Age").map(str::to_owned);
        let control = max_age.map(|text| format!("max-age={text}"));
        let mut headers = vec![("Content-Type", "text/plain"), ("X-Origin", "yes")];
        if let Some(control) = &control {
            headers.push(("Cache-Control", control));
        }
        Reply::new(status, &headers, format!("answer {number}"))
    })
}

/// The steps of a proxy endpoint's request and response PreFlow.
fn around(request: &str, response: &str) -> String {
    format!(
        "<PreFlow><Request>{request}</Request><Response>{response}</Response></PreFlow>{TO_DEFAULT}"
    )
}

fn response_cache(inside: &str) -> String {
    format!(
        "<ResponseCache name='cache'><CacheKey><KeyFragment ref='request.uri' type='string'/></CacheKey>{inside}</ResponseCache>"
    )
}

#[test]
fn a_cached_response_is_answered_without_the_target() {
    for_both_drivers(|driver| {
        let origin = counting();
        let flows = around(
            &(step("cache") + &step("asked")),
            &(step("before") + &step("cache") + &step("after")),
        );
        let bundles = Bundles::new().proxy(
            "cached",
            &[
                ("proxies/default.xml", &endpoint("/cached", &flows)),
                ("targets/default.xml", &target("default", &origin.url())),
                ("policies/cache.xml", &response_cache("")),
                ("policies/asked.xml", &order("asked")),
                ("policies/before.xml", &order("before")),
                ("policies/after.xml", &order("after")),
            ],
        );
        let gateway = bundles.gateway(Some(driver));
        for path in ["/cached/a?x=1", "/cached/a?x=1"] {
            let answer = gateway.get(path).send().expect_status(200);
            assert_eq!(answer.text(), "answer 1");
            assert_eq!(answer.header("X-Origin"), Some("yes"));
            // What stands before the policy in the response flow was kept with the response; what follows runs each time.
            assert_eq!(answer.all("X-Order"), ["before", "after"]);
        }
        assert_eq!(gateway.get("/cached/a?x=2").send().text(), "answer 2");
        assert_eq!(origin.received().len(), 2);
        // An answer without a body is not what others ask for.
        gateway
            .request("HEAD", "/cached/head")
            .send()
            .expect_status(200);
        assert_eq!(gateway.get("/cached/head").send().text(), "answer 4");
    });
}

#[test]
fn a_hit_goes_on_behind_the_attachment_in_the_target_endpoint() {
    let origin = counting();
    let flows = around(&step("cache"), &step("proxy"));
    let with_steps = format!(
        "<TargetEndpoint name='default'><PreFlow><Response>{}</Response></PreFlow>\
         <PostFlow><Response>{}</Response></PostFlow>\
         <HTTPTargetConnection><URL>{}</URL></HTTPTargetConnection></TargetEndpoint>",
        step("early"),
        step("cache") + &step("late"),
        origin.url()
    );
    let bundles = Bundles::new().proxy(
        "cached",
        &[
            ("proxies/default.xml", &endpoint("/cached", &flows)),
            ("targets/default.xml", &with_steps),
            ("policies/cache.xml", &response_cache("")),
            ("policies/early.xml", &order("early")),
            ("policies/late.xml", &order("late")),
            ("policies/proxy.xml", &order("proxy")),
        ],
    );
    let gateway = bundles.gateway(None);
    for _ in 0..2 {
        let answer = gateway.get("/cached").send().expect_status(200);
        assert_eq!(answer.all("X-Order"), ["early", "late", "proxy"]);
        assert_eq!(answer.text(), "answer 1");
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn options_of_response_caches_decide_what_is_kept() {
    let origin = counting();
    let flows = around(&step("cache"), &step("cache"));
    let policy = response_cache(
        "<ExpirySettings><TimeoutInSeconds>600</TimeoutInSeconds></ExpirySettings>\
         <ExcludeErrorResponse>true</ExcludeErrorResponse><UseAcceptHeader>true</UseAcceptHeader>\
         <UseResponseCacheHeaders>true</UseResponseCacheHeaders>\
         <SkipCacheLookup>request.header.x-fresh = \"1\"</SkipCacheLookup>\
         <SkipCachePopulation>request.header.x-private = \"1\"</SkipCachePopulation>",
    );
    let lenient = format!(
        "<TargetEndpoint name='default'><HTTPTargetConnection><Properties>\
         <Property name='success.codes'>2xx,418</Property></Properties><URL>{}</URL></HTTPTargetConnection></TargetEndpoint>",
        origin.url()
    );
    let bundles = Bundles::new().proxy(
        "cached",
        &[
            ("proxies/default.xml", &endpoint("/c", &flows)),
            ("targets/default.xml", &lenient),
            ("policies/cache.xml", &policy),
        ],
    );
    let gateway = bundles.gateway(None);
    let text = |path: &str, headers: &[(&str, &str)]| {
        let mut request = gateway.get(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().text()
    };
    assert_eq!(text("/c/teapot", &[]), "answer 1");
    assert_eq!(text("/c/teapot", &[]), "answer 2", "errors are not kept");
    let private = [("X-Private", "1")];
    assert_eq!(text("/c/a", &private), "answer 3");
    assert_eq!(text("/c/a", &[]), "answer 4", "population was skipped");
    assert_eq!(text("/c/a", &private), "answer 4");
    assert_eq!(text("/c/a", &[("X-Fresh", "1")]), "answer 5");
    assert_eq!(
        text("/c/a", &[]),
        "answer 5",
        "a skipped lookup still keeps"
    );
    let german = [("Accept-Language", "de")];
    assert_eq!(text("/c/a", &german), "answer 6");
    assert_eq!(text("/c/a", &german), "answer 6");
    assert_eq!(text("/c/b", &[("X-Max-Age", "0")]), "answer 7");
    assert_eq!(
        text("/c/b", &[]),
        "answer 8",
        "the response said it is over"
    );
}

#[test]
fn a_response_cache_has_one_attachment_on_each_side() {
    let gateway = Gateway::builder()
        .setting("admin_gui_listen", "off")
        .start();
    let twice = around(&(step("cache") + &step("cache")), "");
    let bundles = Bundles::new().proxy(
        "twice",
        &[
            ("proxies/default.xml", &endpoint("/t", &twice)),
            (
                "targets/default.xml",
                &target("default", "http://127.0.0.1"),
            ),
            ("policies/cache.xml", &response_cache("")),
        ],
    );
    let refused = bundles.import(&gateway, "twice").expect_status(400);
    let message = refused.message();
    assert!(
        message.contains("ResponseCacheStepAttachmentNotAllowedReq"),
        "{message}"
    );
}

fn cache_policy(kind: &str, name: &str, cache: &str, inside: &str) -> String {
    format!(
        "<{kind} name='{name}'><CacheKey><Prefix>p</Prefix><KeyFragment ref='request.queryparam.k'/></CacheKey>\
         <Scope>Global</Scope>{cache}{inside}</{kind}>"
    )
}

const SHOW: &str = "<AssignMessage name='show'><AssignTo createNew='false' type='response'/><IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables><Set>\
    <Payload contentType='text/plain'>{lookupcache.look.cachehit} {lookupcache.look.cachename} {lookupcache.look.cachekey} {found}</Payload>\
    </Set></AssignMessage>";

/// `GET /v` looks up, `PUT /v` keeps the header `v`, `DELETE /v` forgets; all under the query parameter `k`.
fn values(cache: &str) -> Bundles {
    let flow = |verb: &str, name: &str| {
        format!(
            "<Flow name='{verb}'><Condition>request.verb = \"{verb}\"</Condition><Request>{}</Request></Flow>",
            step(name)
        )
    };
    let flows = format!(
        "<Flows>{}{}{}{}</Flows><PostFlow><Response>{}</Response></PostFlow><RouteRule name='nowhere'/>",
        flow("GET", "look"),
        flow("PUT", "keep"),
        flow("DELETE", "forget"),
        flow("PURGE", "purge"),
        step("show")
    );
    let keep = "<ExpirySettings><TimeoutInSec ref='request.header.ttl'>60</TimeoutInSec></ExpirySettings>\
        <Source>request.header.v</Source>";
    let purge = "<PurgeChildEntries>true</PurgeChildEntries>";
    Bundles::new().proxy(
        "values",
        &[
            ("proxies/default.xml", &endpoint("/v", &flows)),
            (
                "policies/look.xml",
                &cache_policy("LookupCache", "look", cache, "<AssignTo>found</AssignTo>"),
            ),
            (
                "policies/keep.xml",
                &cache_policy("PopulateCache", "keep", cache, keep),
            ),
            (
                "policies/forget.xml",
                &cache_policy("InvalidateCache", "forget", cache, ""),
            ),
            (
                "policies/purge.xml",
                &cache_policy("InvalidateCache", "purge", cache, purge),
            ),
            ("policies/show.xml", SHOW),
            ("policies/unused.xml", &raise("unused", 500, "")),
        ],
    )
}

#[track_caller]
fn put(gateway: &Gateway, key: &str, value: &str, status: u16) {
    let request = gateway.request("PUT", &format!("/v?k={key}"));
    let request = match value {
        "" => request,
        value => request.header("v", value),
    };
    request.send().expect_status(status);
}

#[track_caller]
fn look(gateway: &Gateway, key: &str) -> String {
    let answer = gateway.get(&format!("/v?k={key}")).send();
    answer.expect_status(200).text().trim().to_owned()
}

#[test]
fn values_are_kept_found_and_forgotten() {
    let gateway = values("").gateway(None);
    assert_eq!(look(&gateway, "1"), "false default p__1");
    put(&gateway, "1", "one", 200);
    put(&gateway, "12", "twelve", 200);
    put(&gateway, "2", "two", 200);
    assert_eq!(look(&gateway, "1"), "true default p__1 one");
    gateway
        .request("DELETE", "/v?k=1")
        .send()
        .expect_status(200);
    assert_eq!(look(&gateway, "1"), "false default p__1");
    assert_eq!(look(&gateway, "12"), "true default p__12 twelve");
    gateway.request("PURGE", "/v?k=1").send().expect_status(200);
    assert_eq!(look(&gateway, "12"), "false default p__12");
    assert_eq!(look(&gateway, "2"), "true default p__2 two");
    // What is not there cannot be kept.
    let refused = gateway.request("PUT", "/v?k=3").send().expect_status(500);
    assert_eq!(
        refused.json()["fault"]["detail"]["errorcode"],
        "steps.populatecache.EntryCannotBeCached"
    );
    // Longer keys than 2 KiB and larger values than 512 KiB are not kept, and nobody fails by it.
    let long = "k".repeat(2_100);
    put(&gateway, &long, "x", 200);
    assert!(look(&gateway, &long).starts_with("false"));
}

#[test]
fn named_caches_have_limits_and_are_cleared_through_the_management_api() {
    let gateway = Gateway::builder()
        .setting("admin_gui_listen", "off")
        .start();
    let admin = gateway.admin();
    let bundles = values("<CacheResource>mine</CacheResource>");
    let refused = bundles.try_deploy(&gateway, "values");
    assert!(
        refused.text().contains("InvalidCacheResourceReference"),
        "{}",
        refused.text()
    );
    let base = "/v1/organizations/sallyport/environments/test/caches";
    let cache = json!({
        "name": "mine",
        "expirySettings": {"timeoutInSec": {"value": "600"}},
        "maxElementsInMemory": 2,
        "skipCacheIfElementSizeInKBExceeds": "1",
    });
    admin.post(base, cache).expect_status(201);
    bundles.deploy(&gateway, "values");
    for key in ["1", "2", "3"] {
        put(&gateway, key, key, 200);
    }
    assert_eq!(look(&gateway, "1"), "false mine p__1", "two entries fit");
    assert_eq!(look(&gateway, "3"), "true mine p__3 3");
    put(&gateway, "2", &"x".repeat(1_025), 200);
    assert_eq!(look(&gateway, "2"), "false mine p__2", "it is too large");
    let clear = |query: &str| {
        let path = format!("{base}/mine/entries{query}");
        admin.request("POST", &path).send().expect_status(200);
    };
    clear("?action=clear&prefix=p__4");
    assert_eq!(look(&gateway, "3"), "true mine p__3 3");
    clear("/p__3?action=clear");
    assert_eq!(look(&gateway, "3"), "false mine p__3");
    put(&gateway, "5", "five", 200);
    clear("?action=clear");
    assert_eq!(look(&gateway, "5"), "false mine p__5");
}
