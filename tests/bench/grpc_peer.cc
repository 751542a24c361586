// The yardstick of bench_rpc.py: a stock C++ gRPC server that answers one empty unary call.
//
//   grpc_peer PATH     e.g. /grpc.health.v1.Health/Check; prints its port, serves until its standard input ends
//
// As fast as the library goes: an asynchronous service, one completion queue, one thread, many calls waiting to be taken, and messages
// that are bytes (no protobuf). What generated code would say is spelled out, so that no compiler of .proto files is needed.
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/async_unary_call.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int kWaitingCalls = 1024;

class Service : public grpc::Service {
  public:
    explicit Service(const char *path)
    {
        AddMethod(new grpc::internal::RpcServiceMethod(path, grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
        MarkMethodAsync(0);
    }

    void request(grpc::ServerContext *context, grpc::ByteBuffer *message,
                 grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> *writer, grpc::ServerCompletionQueue *queue, void *tag)
    {
        RequestAsyncUnary(0, context, message, writer, queue, queue, tag);
    }
};

// One call after the other.
struct Call {
    grpc::ByteBuffer message;
    std::unique_ptr<grpc::ServerContext> context;
    std::unique_ptr<grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>> writer;
    bool answered = true;

    void wait(Service &service, grpc::ServerCompletionQueue *queue)
    {
        context = std::make_unique<grpc::ServerContext>();
        writer = std::make_unique<grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>>(context.get());
        answered = false;
        service.request(context.get(), &message, writer.get(), queue, this);
    }
};

}  // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fprintf(stderr, "usage: grpc_peer PATH\n");
        return 2;
    }
    Service service(argv[1]);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (server == nullptr) {
        std::fprintf(stderr, "grpc_peer: no port\n");
        return 1;
    }

    const grpc::Slice bytes("\x08\x01", 2);  // HealthCheckResponse{SERVING}
    const grpc::ByteBuffer answer(&bytes, 1);
    std::vector<Call> calls(kWaitingCalls);
    for (Call &call : calls)
        call.wait(service, queue.get());
    std::printf("%d\n", port);
    std::fflush(stdout);
    std::thread([] {
        char byte;
        while (read(STDIN_FILENO, &byte, 1) > 0)
            continue;
        std::_Exit(0);
    }).detach();

    void *tag;
    bool good;
    while (queue->Next(&tag, &good)) {
        Call *call = static_cast<Call *>(tag);
        if (call->answered) {
            call->wait(service, queue.get());
        } else {
            call->answered = true;
            call->writer->Finish(answer, grpc::Status::OK, call);
        }
    }
    return 0;
}
