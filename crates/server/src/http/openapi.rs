//! The OpenAPI 3.1 document and the guide's page, both read off the route table.

use std::sync::OnceLock;

use axum::extract::Request;
use axum::response::Response;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::api::jobs::PATH_JOB;
use super::call::Call;
use super::documented::{Header, Sent};
use super::error::{Answer, ErrorBody};
use super::login::CSRF_FIELD;
use super::route::{Face, Needs, Route, takes_query};
use super::{routes, stream};

/// `GET /openapi.json`.
pub async fn show(_call: Call, _request: Request) -> Answer<Response> {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| document(&routes::table()).to_string());
    Ok(stream::respond("application/json", text.as_str().into()))
}

/// The document of some routes.
pub fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.shown_path()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut generator, &error);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Towpath",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Times are milliseconds since 1970. Names in a path are percent-encoded: the branch \
                `release/1.0` is `release%2F1.0`.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": { "type": "http", "scheme": "basic" },
                "session": { "type": "apiKey", "in": "cookie", "name": "towpath_session" },
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &schemars::Schema) -> Value {
    let mut parameters: Vec<Value> = route.parameters().map(path_parameter).collect();
    let input = route.input.map(|schema| schema(generator));
    let mut operation = json!({
        "summary": route.summary,
        "tags": [route.face.words()],
        "security": security(route),
        "x-needs": route.needs.words(),
        "x-verb": route.verb.word(),
    });
    let output = route.output.map_or(json!({}), |schema| json!({ "schema": schema(generator) }));
    operation["responses"] = responses(route, &output, error);
    parameters.extend(route.headers.iter().map(header));
    if let Some(sent) = &route.sent {
        operation["requestBody"] = body(route, sent);
    }
    match input {
        Some(schema) if takes_query(route) => parameters.extend(query_parameters(&schema, generator)),
        Some(schema) => {
            let content = json!({ "application/json": { "schema": schema } });
            operation["requestBody"] = json!({ "required": route.needs_body, "content": content });
        }
        None => {}
    }
    operation["parameters"] = Value::Array(parameters);
    operation
}

/// What it answers. What fails is told to programs as JSON, to browsers as a page, and to git as it understands it.
fn responses(route: &Route, output: &Value, error: &schemars::Schema) -> Value {
    let of = |medias: &[&str], value: &Value| -> Value {
        medias.iter().map(|media| ((*media).to_owned(), value.clone())).collect::<Map<_, _>>().into()
    };
    let json = of(&["application/json"], &json!({ "schema": error }));
    let failed = match route.face {
        Face::Page => of(&["text/html"], &json!({})),
        Face::Git => of(&["text/plain"], &json!({})),
        Face::Api | Face::Open => json,
    };
    let mut responses = json!({ "default": { "description": "What went wrong", "content": failed } });
    let elsewhere = |description: &str| {
        let place = json!({ "required": true, "schema": { "type": "string" } });
        json!({ "description": description, "headers": { "Location": place } })
    };
    if route.face == Face::Page && route.needs != Needs::Public {
        responses["303"] = elsewhere("Nobody is logged in: the login, and back");
    }
    match route.leads_on {
        true => responses["303"] = elsewhere("Done, and on; or nobody is logged in: the login, and back"),
        false => {
            let done =
                route.events.map_or("Done".to_owned(), |events| format!("Server-sent events: {events}"));
            responses["200"] = json!({ "description": done, "content": of(&route.medias, output) });
        }
    }
    responses
}

fn body(route: &Route, sent: &Sent) -> Value {
    let fields = match sent {
        Sent::Bytes(media) => return json!({ "required": true, "content": { *media: {} } }),
        Sent::Form(fields) => fields,
    };
    let owned = route.needs != Needs::Public;
    let named = fields.iter().chain(owned.then_some(&CSRF_FIELD));
    let properties: Map<String, Value> =
        named.map(|field| ((*field).to_owned(), json!({ "type": "string" }))).collect();
    let required: Vec<&str> = owned.then_some(CSRF_FIELD).into_iter().collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "required": true, "content": { "application/x-www-form-urlencoded": { "schema": schema } } })
}

fn header(header: &Header) -> Value {
    let Header { name, required, says } = header;
    json!({ "name": name, "in": "header", "required": required, "description": says, "schema": { "type": "string" } })
}

fn path_parameter(name: &str) -> Value {
    let mut parameter =
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    if name == "job" {
        parameter["description"] = PATH_JOB.into();
    }
    parameter
}

/// The fields of an input that comes in the query.
fn query_parameters(schema: &schemars::Schema, generator: &SchemaGenerator) -> Vec<Value> {
    let name = schema.get("$ref").and_then(|target| target.as_str()?.rsplit('/').next());
    let object = name.and_then(|name| generator.definitions().get(name)).unwrap_or(schema.as_value());
    let required = |field: &String| {
        object["required"]
            .as_array()
            .is_some_and(|fields| fields.iter().any(|one| one.as_str() == Some(field)))
    };
    let fields = object["properties"].as_object().into_iter().flatten();
    fields
        .map(|(field, schema)| {
            json!({ "name": field, "in": "query", "required": required(field), "schema": schema })
        })
        .collect()
}

fn security(route: &Route) -> Value {
    match (route.needs, route.face) {
        (Needs::Public, _) => json!([]),
        (_, Face::Page) => json!([{ "session": [] }]),
        _ => json!([{ "bearer": [] }, { "basic": [] }]),
    }
}

/// The routes as a page of the guide.
pub fn guide(routes: &[Route]) -> String {
    let mut text = String::from(
        "# The HTTP API\n\n\
         This page is made from the route table: `cargo test -p towpath-server` compares it, with `UPDATE_EXPECT=1` it is\n\
         renewed. Fields of requests and answers stand in `/openapi.json` of every server.\n\n\
         - Programs and Git log in with a token: `Authorization: Bearer twp_…`, or Basic with the token as the password.\n  \
         Browsers log in with a session's cookie. Neither is accepted in the other's place.\n\
         - Times are milliseconds since 1970. Names in a path are percent-encoded: the branch `release/1.0` is\n  \
         `release%2F1.0`.\n\
         - A body is a JSON object. What it leaves out has its default; what is to be taken away is said by `null`.\n\
         - Every error is `{class, what, why, hint, exit_code}`; for a browser it is a page, for Git plain text.\n\
         - A repo on which one has no right, or that the token does not reach, is answered for as one that does not exist.\n\
         - A token that is made for some repos does nothing of the whole server, also where its owner is an admin of that;\n  \
         tokens that reach further it neither shows nor revokes.\n\n\
         | class | HTTP | exit code |\n|---|---|---|\n",
    );
    for class in super::error::Class::ALL {
        let word = serde_json::to_value(class)
            .ok()
            .and_then(|word| Some(word.as_str()?.to_owned()))
            .unwrap_or_default();
        text.push_str(&format!("| `{word}` | {} | {} |\n", class.status().as_u16(), class.exit_code()));
    }
    text.push_str("\n| method and path | does | needs | token verb | face |\n|---|---|---|---|---|\n");
    for route in routes {
        text.push_str(&format!(
            "| `{} {}` | {} | {} | {} | {} |\n",
            route.method,
            route.shown_path(),
            route.summary,
            route.needs.words(),
            if route.needs == Needs::Public || route.face == Face::Page { "-" } else { route.verb.word() },
            route.face.words(),
        ));
    }
    text.push_str(
        "
| stream | its server-sent events |
|---|---|
",
    );
    let streams = routes.iter().filter(|route| route.face == Face::Api);
    for (route, events) in streams.filter_map(|route| Some((route, route.events?))) {
        text.push_str(&format!(
            "| `{}` | {events} |
",
            route.shown_path()
        ));
    }
    text
}
