// 06_cplusplus.cpp - the same library from C++: owners by unique_ptr, errors as exceptions.
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fmamba.h"

namespace
{

void check(fm_status status, const fm_error &err)
{
    if (status != FM_OK) throw std::runtime_error(err.text);
}

template <typename T, void (*Free)(T *)> struct Release {
    void operator()(T *p) const { Free(p); }
};
using Model = std::unique_ptr<fm_model, Release<fm_model, fm_model_free>>;
using Session = std::unique_ptr<fm_session, Release<fm_session, fm_session_free>>;
using Sampler = std::unique_ptr<fm_sampler, Release<fm_sampler, fm_sampler_free>>;

std::vector<int32_t> tokenize(const fm_model *model, const std::string &text)
{
    fm_error err;
    size_t n = 0;
    check(fm_tokenize(fm_model_tokenizer(model), text.data(), text.size(), FM_ADD_SPECIAL, nullptr, &n, &err), err);
    std::vector<int32_t> ids(n);
    check(fm_tokenize(fm_model_tokenizer(model), text.data(), text.size(), FM_ADD_SPECIAL, ids.data(), &n, &err), err);
    return ids;
}

bool collect(void *ctx, const fm_token_event *e)
{
    static_cast<std::string *>(ctx)->append(e->text, e->text_n);
    return true;
}

std::string complete(const char *path, const std::string &prompt)
{
    fm_error err;
    fm_model *m;
    fm_session *s;
    fm_sampler *p;
    fm_seq seq;
    check(fm_model_open(&m, path, nullptr, &err), err);
    const Model model(m);
    check(fm_session_open(&s, m, nullptr, &err), err);
    const Session session(s);
    check(fm_seq_new(s, &seq, &err), err);
    const std::vector<int32_t> ids = tokenize(m, prompt);
    check(fm_seq_append(s, seq, ids.data(), ids.size(), &err), err);

    fm_sampling sampling = fm_sampling_defaults(m);
    sampling.temperature = 0;
    check(fm_sampler_open(&p, &sampling, fm_model_get_info(m).vocab, nullptr, nullptr, &err), err);
    const Sampler sampler(p);

    std::string text;
    fm_generation g = {};
    g.n = 30;
    g.tokenizer = fm_model_tokenizer(m);
    g.on_token = collect;
    g.ctx = &text;
    fm_generated result;
    check(fm_generate(s, seq, p, &g, &result, &err), err);
    return text;
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc < 3) return std::fprintf(stderr, "usage: 06_cplusplus MODEL TEXT\n"), 2;
    std::printf("%s%s\n", argv[2], complete(argv[1], argv[2]).c_str());
    return 0;
} catch (const std::exception &e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
