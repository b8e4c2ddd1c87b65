"""An app whose tasks write to the topic that their data name."""

from kantoku_kafka import Context, Kantoku

kan = Kantoku("producing")


@kan.task("produces", pool="inline")
def produces(data: bytes, ctx: Context) -> bytes:
    ctx.produce(data.decode(), b"k", b"x" * 1_000)
    return data
