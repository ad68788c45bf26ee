//! Pages, sizes, offsets, tags.

use serde_json::{Value, json};

use super::Api;

#[tokio::test]
async fn pages_follow_each_other() {
    let api = Api::new();
    for index in 0..7 {
        api.made(
            "/services",
            json!({"name": format!("s{index}"), "host": "h", "tags": ["t"]}),
        )
        .await;
    }
    let mut seen = Vec::new();
    let mut next = "/services?size=3&tags=t".to_owned();
    loop {
        let page = api.get(&next).await.expect(200);
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 3);
        seen.extend(
            data.iter()
                .map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            None => {
                assert!(page.get("offset").is_none());
                break;
            }
            Some(url) => {
                assert_eq!(
                    url,
                    format!(
                        "/services?offset={}&size=3&tags=t",
                        page["offset"].as_str().unwrap()
                    )
                );
                next = url.to_owned();
            }
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn nested_pages_do_not_repeat_the_size() {
    let api = Api::new();
    api.made("/services", json!({"name": "a~b", "host": "h"}))
        .await;
    for index in 0..3 {
        api.made(
            "/services/a~b/routes",
            json!({"paths": [format!("/{index}")]}),
        )
        .await;
    }
    let page = api.get("/services/a~b/routes?size=2").await.expect(200);
    let offset = page["offset"].as_str().unwrap();
    assert_eq!(
        page["next"],
        format!("/services/a~b/routes?offset={offset}")
    );
    let rest = api.get(page["next"].as_str().unwrap()).await.expect(200);
    assert_eq!(rest["data"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test]
async fn tags_filter_and_are_listed() {
    let api = Api::new();
    api.made("/consumers", json!({"username": "ann", "tags": ["a", "b"]}))
        .await;
    api.made("/consumers", json!({"username": "bob", "tags": ["b", "c"]}))
        .await;
    api.made(
        "/services",
        json!({"name": "s", "host": "h", "tags": ["a"]}),
    )
    .await;
    for (query, names) in [
        ("tags=b", vec!["ann", "bob"]),
        ("tags=a,b", vec!["ann"]),
        ("tags=a/c", vec!["ann", "bob"]),
        ("tags=x", vec![]),
    ] {
        let page = api.get(&format!("/consumers?{query}")).await.expect(200);
        let mut found: Vec<&str> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["username"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, names, "{query}");
    }
    let all = api.get("/tags").await.expect(200);
    assert_eq!(all["data"].as_array().unwrap().len(), 5);
    let first = api.get("/tags?size=2").await.expect(200);
    let rest = api.get(first["next"].as_str().unwrap()).await.expect(200);
    assert_eq!(rest["data"][0], all["data"][2]);
    let one = api.get("/tags/a?size=1").await.expect(200);
    assert_eq!(one["data"][0]["tag"], "a");
    let other = api.get(one["next"].as_str().unwrap()).await.expect(200);
    assert_eq!(other["data"].as_array().unwrap().len(), 1);
    assert_ne!(
        other["data"][0]["entity_name"],
        one["data"][0]["entity_name"]
    );
    api.get("/tags/a%2Cb").await.expect(400);
    api.get("/tags?offset=x").await.expect(400);
}

#[tokio::test]
async fn ten_thousand_rows_are_listed_fast() {
    let api = Api::new();
    let rows: Vec<Value> = (0..10_000)
        .map(|index| json!({"username": format!("u{index}")}))
        .collect();
    // Written in one commit, as an import does.
    let admin = api.admin.clone();
    let written = api.admin.control.write_kong(move |set, moment| {
        let mut new_id = uuid::Uuid::new_v4;
        let mut context = crate::dialects::kong::entities::WriteContext {
            now_millis: moment.unix_ms(),
            catalog: &admin.catalog,
            flavor: admin.flavor(),
            new_id: &mut new_id,
            already_transformed: false,
        };
        let mut changes = Vec::new();
        for row in &rows {
            let fields = row.as_object().unwrap().clone();
            let kind = crate::dialects::kong::entities::EntityKind::Consumer;
            changes.extend(set.create(kind, fields, &mut context)?.changes);
        }
        Ok(((), changes))
    });
    written.await.unwrap();
    let started = std::time::Instant::now();
    let mut count = 0;
    let mut next = Some("/consumers?size=1000".to_owned());
    while let Some(path) = next {
        let page = api.get(&path).await.expect(200);
        count += page["data"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(count, 10_000);
    // Generous, for unoptimised builds on busy machines; a quadratic list takes minutes.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[tokio::test]
async fn consumers_are_found_by_custom_id() {
    let api = Api::new();
    let ann = api
        .made("/consumers", json!({"username": "ann", "custom_id": "42"}))
        .await;
    assert_eq!(
        api.get("/consumers?custom_id=42").await.expect(200),
        json!({"data": [ann], "next": null})
    );
    assert_eq!(
        api.get("/consumers?custom_id=1").await.expect(200)["data"],
        json!([])
    );
    let refused = api.get("/consumers?custom_id=").await.expect(400);
    assert_eq!(refused["message"], "custom_id must be an unempty string");
}
