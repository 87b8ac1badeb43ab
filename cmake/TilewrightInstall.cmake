# find_package(tilewright [COMPONENTS emulator]) gives tilewright::tilewright and tilewright::emulator.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS tilewright EXPORT tilewright)
install(DIRECTORY include/tilewright DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY cache/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tilewright/cache)
if(TILEWRIGHT_EMULATOR)
  install(TARGETS tilewright_emulator_library EXPORT tilewright)
endif()
if(TILEWRIGHT_TOOLS)
  install(TARGETS tilewright_command)
endif()
set(destination ${CMAKE_INSTALL_LIBDIR}/cmake/tilewright)
install(EXPORT tilewright NAMESPACE tilewright:: FILE tilewrightTargets.cmake DESTINATION ${destination})
configure_package_config_file(cmake/tilewrightConfig.cmake.in ${PROJECT_BINARY_DIR}/tilewrightConfig.cmake
                              INSTALL_DESTINATION ${destination})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tilewrightConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tilewrightConfig.cmake ${PROJECT_BINARY_DIR}/tilewrightConfigVersion.cmake
        DESTINATION ${destination})
