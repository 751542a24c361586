// A stock C++ gRPC client: raw messages through grpc::GenericStub, so that it needs no generated code. Prints what became of each call.
//
//     cpp_client HOST:PORT REQUEST ANSWER
//
// REQUEST is a file with an encoded RankRequest, ANSWER the file that the response is written to.
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

namespace
{

std::string to_string(const grpc::ByteBuffer &buffer)
{
    std::vector<grpc::Slice> slices;
    std::string text;
    if (buffer.Dump(&slices).ok()) {
        for (const grpc::Slice &slice : slices)
            text.append(reinterpret_cast<const char *>(slice.begin()), slice.size());
    }
    return text;
}

grpc::ByteBuffer to_buffer(const std::string &text)
{
    grpc::Slice slice(text);
    return grpc::ByteBuffer(&slice, 1);
}

std::string varint(uint64_t value)
{
    std::string text;
    for (; value >= 0x80; value >>= 7)
        text.push_back(static_cast<char>(value | 0x80));
    text.push_back(static_cast<char>(value));
    return text;
}

class Client
{
public:
    explicit Client(const std::string &target)
        : stub_(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))
    {
    }

    grpc::Status unary(const std::string &path, const std::string &request, std::chrono::microseconds timeout, std::string *answer)
    {
        grpc::ClientContext context;
        grpc::ByteBuffer received;
        grpc::Status status;
        context.set_deadline(std::chrono::system_clock::now() + timeout);
        context.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        context.AddMetadata("key-bin", std::string("\0\1\2", 3));
        std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> call =
            stub_.PrepareUnaryCall(&context, path, to_buffer(request), &queue_);
        call->StartCall();
        call->Finish(&received, &status, this);
        wait();
        *answer = to_string(received);
        return status;
    }

    // Sends each message, half-closes if told to, and reads up to `most` answers; then the status, or after a cancel none.
    grpc::Status stream(const std::string &path, const std::string &message, int count, int most, int *answers)
    {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
        std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call = stub_.PrepareCall(&context, path, &queue_);
        call->StartCall(this);
        bool good = wait();
        for (int i = 0; i < count && good; i++) {
            call->Write(to_buffer(message), this);
            good = wait();
        }
        if (good) {
            call->WritesDone(this);
            good = wait();
        }
        for (*answers = 0; good && *answers < most;) {
            grpc::ByteBuffer received;
            call->Read(&received, this);
            good = wait();
            *answers += good;
        }
        if (good)
            context.TryCancel();
        grpc::Status status;
        call->Finish(&status, this);
        wait();
        return status;
    }

private:
    bool wait()
    {
        void *tag;
        bool good = false;
        return queue_.Next(&tag, &good) && good;
    }

    grpc::GenericStub stub_;
    grpc::CompletionQueue queue_;
};

} // namespace

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::cerr << "usage: cpp_client HOST:PORT REQUEST ANSWER\n";
        return 2;
    }
    std::ifstream file(argv[2], std::ios::binary);
    const std::string request((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::chrono::seconds minute(60);
    Client client(argv[1]);
    std::string answer, nothing;
    int answers;

    grpc::Status status = client.unary("/rankd.v1.Ranking/Rank", request, minute, &answer);
    std::ofstream(argv[3], std::ios::binary) << answer;
    std::cout << "rank " << status.error_code() << "\n";

    // RankStreamRequest: id = 7, request
    const std::string item = std::string("\x08\x07\x12") + varint(request.size()) + request;
    status = client.stream("/rankd.v1.Ranking/RankStream", item, 50, 51, &answers);
    std::cout << "stream " << answers << " answers, " << status.error_code() << "\n";

    client.stream("/grpc.health.v1.Health/Watch", "", 1, 1, &answers);
    std::cout << "watch " << answers << " message\n";

    status = client.unary("/a.B/C", "", minute, &nothing);
    std::cout << "unknown " << status.error_code() << ": " << status.error_message() << "\n";
    return 0;
}
