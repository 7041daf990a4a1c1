// A libnvrtc.so.13 for tests of loading.
extern "C" int nvrtcVersion() { return 1; }
