"""A collector that answers as it is told, and prints what it gets as JSON lines.

python collector.py PORT [ANSWER …]: one answer per request, the last for all that follow:
  200            all of it
  200:N          all but N, with a reason
  503, 429:S     that status; Retry-After S if it is given
  silent         nothing, ever
With COLLECTOR_TLS naming a directory it speaks TLS, with cert.pem and key.pem in it.
Messages are decoded by OpenTelemetry's own package.
"""

import gzip
import http.server
import json
import os
import ssl
import sys
import threading
import time

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

answers = sys.argv[2:] or ["200"]
lock = threading.Lock()


def value(any_value):
    """What an AnyValue holds."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: value(one.value) for one in any_value.kvlist_value.values}
    return getattr(any_value, kind)


def plain(attributes):
    names = [one.key for one in attributes]
    assert len(names) == len(set(names)), f"an attribute twice: {names}"
    return {one.key: value(one.value) for one in attributes}


def records(request):
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield {
                    "resource": plain(resource.resource.attributes),
                    "scope": MessageToDict(scope.scope),
                    "time": record.time_unix_nano,
                    "observed": record.observed_time_unix_nano,
                    "severity": record.severity_number,
                    "severity_text": record.severity_text,
                    "event": record.event_name,
                    "body": value(record.body),
                    "attributes": plain(record.attributes),
                }


def points(metric):
    """Points of a metric, and whether they are sums since a beginning."""
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    for point in data.data_points:
        if kind == "histogram":
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1, metric
            number = point.count
        else:
            number = getattr(point, point.WhichOneof("value"))
        assert 0 < point.start_time_unix_nano < point.time_unix_nano, metric
        yield {"attributes": plain(point.attributes), "value": number}


def metrics(request):
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                yield {
                    "resource": plain(resource.resource.attributes),
                    "name": metric.name,
                    "unit": metric.unit,
                    "kind": kind,
                    # 2 is cumulative.
                    "cumulative": kind != "gauge"
                    and getattr(metric, kind).aggregation_temporality == 2,
                    "points": list(points(metric)),
                }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.endswith("/v1/metrics"):
            got = {"metrics": list(metrics(ExportMetricsServiceRequest.FromString(body)))}
        else:
            got = {"records": list(records(ExportLogsServiceRequest.FromString(body)))}
        with lock:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            print(
                json.dumps(
                    {
                        "at": time.monotonic(),
                        "answer": answer,
                        "path": self.path,
                        "headers": {key.lower(): text for key, text in self.headers.items()},
                        **got,
                    }
                ),
                flush=True,
            )
        if answer == "silent":
            threading.Event().wait()
        status, _, more = answer.partition(":")
        response = ExportLogsServiceResponse()
        if status == "200" and more:
            response.partial_success.rejected_log_records = int(more)
            response.partial_success.error_message = "too \x1b[31mold"
        body = response.SerializeToString()
        self.send_response(int(status))
        if status == "429":
            self.send_header("Retry-After", more)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
if directory := os.environ.get("COLLECTOR_TLS"):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
print(json.dumps({"port": server.server_address[1]}), flush=True)
server.serve_forever()
