# The images of scripts/images for those who build with Docker or Podman: the same files by the same scripts, one target each.
#
#   docker build --target operator -t registry.example.com/pitcrew/operator:0.1.0 .
#
# Trainer and check for GPUs are trainer-gpu and check-gpu. tests/images/images_test.py holds users, entry points and variables below
# against what scripts/images writes.
FROM debian:12 AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git python3 sudo && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN scripts/setup && scripts/images --out /out operator launcher agent trainer check cli \
    && for image in operator launcher agent trainer check cli; do python3 scripts/oci.py /out/$image.tar /root-of/$image; done

FROM scratch AS operator
COPY --from=build /root-of/operator /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew-operator"]

FROM scratch AS launcher
COPY --from=build /root-of/launcher /
USER 65532:65532
ENTRYPOINT ["/pitcrew-launcher"]

FROM scratch AS agent
COPY --from=build /root-of/agent /
USER 0:0
ENTRYPOINT ["/usr/bin/pitcrew-agent"]

FROM scratch AS trainer
COPY --from=build /root-of/trainer /
USER 65532:65532

FROM scratch AS check
COPY --from=build /root-of/check /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew-check"]

FROM scratch AS cli
COPY --from=build /root-of/cli /
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew"]

FROM build AS build-gpu
RUN scripts/setup --cuda-runtime && scripts/images --cuda --out /out-gpu trainer check \
    && for image in trainer check; do python3 scripts/oci.py /out-gpu/$image.tar /root-of/$image-gpu; done

FROM scratch AS trainer-gpu
COPY --from=build-gpu /root-of/trainer-gpu /
ENV LD_LIBRARY_PATH="/opt/amazon/ofi-nccl/lib:/opt/amazon/efa/lib:/opt/aws-ofi-nccl/lib" NVIDIA_VISIBLE_DEVICES="all" NVIDIA_DRIVER_CAPABILITIES="compute,utility"
USER 65532:65532

FROM scratch AS check-gpu
COPY --from=build-gpu /root-of/check-gpu /
ENV LD_LIBRARY_PATH="/opt/amazon/ofi-nccl/lib:/opt/amazon/efa/lib:/opt/aws-ofi-nccl/lib" NVIDIA_VISIBLE_DEVICES="all" NVIDIA_DRIVER_CAPABILITIES="compute,utility"
USER 65532:65532
ENTRYPOINT ["/usr/bin/pitcrew-check"]
