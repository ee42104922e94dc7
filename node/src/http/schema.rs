//! The schema of a receipt in text form, for the description of `POST /verify`. The law is `tops_protocol::codec`; what this lets through and that refuses
//! would be found by the check of the description.

use tops_protocol::receipt::{KERNEL_V1, KERNEL_V2};
use tops_protocol::types::INTEGER_LIMIT;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A signed receipt in text form.
pub(super) struct SignedReceipt;

/// One that names its miner.
struct SignedReceiptV2;

/// One of the original worker.
struct SignedReceiptV1;

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

/// 1..=128 bytes of printable ASCII without `"` and `\`.
fn words() -> ObjectBuilder {
    text(r"^[ !#-\[\]-~]{1,128}$")
}

fn whole(below: u64) -> ObjectBuilder {
    let format = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
    ObjectBuilder::new().schema_type(Type::Integer).format(format).minimum(Some(0)).maximum(Some((below - 1) as f64))
}

fn only(word: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some([word]))
}

fn object(fields: Vec<(&str, RefOr<Schema>)>) -> ObjectBuilder {
    fields.into_iter().fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema).required(name))
}

fn closed(object: ObjectBuilder) -> ObjectBuilder {
    object.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn field(schema: ObjectBuilder) -> RefOr<Schema> {
    schema.into()
}

const ROOT: &str = "^[0-9a-f]{64}$";

impl PartialSchema for SignedReceiptV2 {
    fn schema() -> RefOr<Schema> {
        let side = || ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([256, 512, 1024, 2048, 4096, 8192]));
        let m = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(16)).maximum(Some(8192)).multiple_of(Some(16));
        let sizes = object(vec![("m", field(m)), ("n", field(side())), ("k", field(side())), ("batch", field(whole(INTEGER_LIMIT)))]);
        closed(object(vec![
            ("device_did", field(words())),
            ("epoch_id", field(whole(INTEGER_LIMIT))),
            ("prev_hash_hex", field(text(ROOT))),
            ("nonce", field(whole(INTEGER_LIMIT))),
            ("work_root_hex", field(text(ROOT))),
            ("sizes", field(closed(sizes))),
            ("time_ms", field(whole(INTEGER_LIMIT))),
            ("kernel_ver", field(only(KERNEL_V2))),
            ("driver_hint", field(words())),
            ("network_hex", field(text("^[0-9a-f]{16}$"))),
            ("miner_hex", field(text("^0[23][0-9a-f]{64}$"))),
            ("timestamp_ms", field(whole(INTEGER_LIMIT))),
            ("sig_hex", field(text("^[0-9a-f]{128}$"))),
        ]))
        .description(Some("A receipt of the network: it names its miner, and has no other keys."))
        .into()
    }
}

impl PartialSchema for SignedReceiptV1 {
    fn schema() -> RefOr<Schema> {
        let side = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(8192));
        let sizes = object(vec![("m", field(side())), ("n", field(side())), ("k", field(side()))]);
        let receipt = object(vec![
            ("device_did", field(ObjectBuilder::new().schema_type(Type::String))),
            ("epoch_id", field(whole(INTEGER_LIMIT))),
            ("prev_hash_hex", field(text(ROOT))),
            ("nonce", field(whole(1 << 32))),
            ("work_root_hex", field(text(ROOT))),
            ("sizes", field(sizes)),
            ("time_ms", field(whole(INTEGER_LIMIT))),
            ("kernel_ver", field(only(KERNEL_V1))),
            ("driver_hint", field(ObjectBuilder::new().schema_type(Type::String))),
            ("sig_hex", field(text("^(0x)?([0-9a-fA-F]{2}){0,71}$"))),
        ]);
        receipt.description(Some("A receipt of the original worker; further keys are covered by its digest.")).into()
    }
}

impl PartialSchema for SignedReceipt {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new().item(Ref::from_schema_name("SignedReceiptV2")).item(Ref::from_schema_name("SignedReceiptV1")).into()
    }
}

impl ToSchema for SignedReceiptV2 {}
impl ToSchema for SignedReceiptV1 {}
impl ToSchema for SignedReceipt {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((SignedReceiptV2::name().into(), SignedReceiptV2::schema()));
        schemas.push((SignedReceiptV1::name().into(), SignedReceiptV1::schema()));
    }
}
